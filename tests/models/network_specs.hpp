#pragma once

#include <covey/model_spec.hpp>
#include <vector>

/// Networks with every layer kind (recurrent ones apart), alone and in combination, with sizes that
/// leave partial vectors and tiles.
namespace covey::models::reference {

struct NamedSpec {
  const char* name;
  ModelSpec spec;
};

using enum LayerKind;

inline LayerSpec dense(std::uint32_t units) { return {.kind = kDense, .units = units}; }
inline LayerSpec convolution(std::uint32_t units, std::uint32_t kernel, std::uint32_t stride = 1,
                             Padding padding = Padding::kSame) {
  return {.kind = kConv2d, .units = units, .kernel = kernel, .stride = stride, .padding = padding};
}
inline LayerSpec depthwise(std::uint32_t kernel, std::uint32_t stride = 1,
                           Padding padding = Padding::kSame) {
  return {.kind = kDepthwiseConv2d, .kernel = kernel, .stride = stride, .padding = padding};
}
inline LayerSpec max_pool(std::uint32_t kernel, std::uint32_t stride = 0) {
  return {.kind = kMaxPool2d, .kernel = kernel, .stride = stride};
}
inline LayerSpec average_pool(std::uint32_t kernel, std::uint32_t stride = 0) {
  return {.kind = kAveragePool2d, .kernel = kernel, .stride = stride};
}
inline LayerSpec group_norm(std::uint32_t groups) { return {.kind = kGroupNorm, .groups = groups}; }
inline LayerSpec add(std::uint32_t back) { return {.kind = kAdd, .back = back}; }
inline LayerSpec dropout(float rate) { return {.kind = kDropout, .rate = rate}; }

/// Dense, convolution and pooling as the first versions had them.
inline std::vector<NamedSpec> plain_specs() {
  return {
      {"logistic", {{7}, {dense(5)}}},
      {"two hidden layers", {{19}, {dense(33), {kRelu}, dense(70), {kRelu}, dense(3)}}},
      {"hidden layer without relu", {{6}, {dense(16), dense(32), dense(10)}}},
      {"relu on the input and twice", {{9}, {{kRelu}, dense(8), {kRelu}, {kRelu}, dense(4)}}},
      {"relu on the scores", {{9}, {dense(4), {kRelu}}}},
      {"convolution", {{5, 7, 3}, {convolution(6, 3), {kRelu}, {kFlatten}, dense(3)}}},
      {"convolution without relu", {{4, 4, 2}, {convolution(17, 3), {kFlatten}, dense(3)}}},
      {"even kernels",
       {{6, 5, 2}, {convolution(5, 2), {kRelu}, convolution(3, 4), {kRelu}, {kFlatten}, dense(2)}}},
      {"kernel of one",
       {{3, 3, 5}, {convolution(4, 1), {kRelu}, convolution(2, 1), {kFlatten}, dense(2)}}},
      {"kernel larger than the image",
       {{2, 3, 1}, {convolution(3, 5), convolution(3, 7), {kFlatten}, dense(2)}}},
      {"wide window rows",
       {{4, 6, 3},
        {convolution(37, 3),
         {kRelu},
         convolution(20, 5),
         {kRelu},
         convolution(70, 5),
         {kFlatten},
         dense(3)}}},
      {"a row wider than a tile", {{2, 31, 2}, {convolution(4, 3), {kRelu}, {kFlatten}, dense(3)}}},
      {"pooling that leaves a rest",
       {{7, 8, 3}, {convolution(20, 3), {kRelu}, max_pool(3), {kFlatten}, dense(3)}}},
      {"pooling first, then relu",
       {{6, 6, 2},
        {max_pool(2), {kRelu}, convolution(3, 3), max_pool(3), {kRelu}, {kFlatten}, dense(3)}}},
      {"pooling before relu",
       {{6, 6, 1}, {convolution(4, 3), max_pool(2), {kRelu}, {kFlatten}, dense(3)}}},
      {"small cnn",
       {{12, 12, 1},
        {convolution(8, 5),
         {kRelu},
         max_pool(2),
         convolution(16, 5),
         {kRelu},
         max_pool(2),
         {kFlatten},
         dense(24),
         {kRelu},
         dense(10)}}},
  };
}

/// Strides, valid padding, depthwise convolutions and overlapping windows.
inline std::vector<NamedSpec> window_specs() {
  constexpr Padding kValid = Padding::kValid;
  return {
      {"strided convolutions",
       {{9, 8, 3},
        {convolution(7, 3, 2), {kRelu}, convolution(18, 3, 2), {kRelu}, {kFlatten}, dense(3)}}},
      {"stride larger than the kernel",
       {{8, 7, 2}, {convolution(5, 1, 3), convolution(9, 2, 3), {kFlatten}, dense(3)}}},
      {"stride that leaves rows over, valid",
       {{10, 11, 2},
        {convolution(4, 3, 2, kValid),
         {kRelu},
         convolution(3, 2, 3, kValid),
         {kFlatten},
         dense(3)}}},
      {"valid padding",
       {{7, 6, 3},
        {convolution(17, 3, 1, kValid),
         {kRelu},
         convolution(5, 4, 1, kValid),
         {kFlatten},
         dense(3)}}},
      {"even kernel and stride", {{7, 9, 2}, {convolution(6, 4, 2), {kFlatten}, dense(3)}}},
      {"strided second layer with wide rows",
       {{7, 5, 2}, {convolution(19, 3), convolution(33, 5, 2), {kFlatten}, dense(3)}}},
      {"depthwise", {{6, 5, 3}, {depthwise(3), {kRelu}, depthwise(2), {kFlatten}, dense(3)}}},
      {"depthwise over many channels",
       {{5, 4, 2}, {convolution(70, 1), {kRelu}, depthwise(3), {kRelu}, {kFlatten}, dense(3)}}},
      {"depthwise over all blocks",
       {{4, 4, 1}, {convolution(101, 1), depthwise(3, 2), {kRelu}, {kFlatten}, dense(2)}}},
      {"strided and valid depthwise",
       {{9, 8, 5},
        {depthwise(3, 2),
         {kRelu},
         depthwise(2, 1, kValid),
         depthwise(2, 3),
         {kFlatten},
         dense(3)}}},
      {"depthwise kernel larger than the image",
       {{2, 3, 4}, {depthwise(5), depthwise(7, 2), {kFlatten}, dense(2)}}},
      {"overlapping max-pooling",
       {{8, 7, 3}, {convolution(20, 3), {kRelu}, max_pool(3, 2), {kFlatten}, dense(3)}}},
      {"max-pooling with gaps",
       {{9, 8, 2}, {convolution(5, 3), max_pool(2, 3), {kFlatten}, dense(3)}}},
      {"average-pooling", {{7, 8, 3}, {convolution(18, 3), average_pool(2), {kFlatten}, dense(3)}}},
      {"overlapping average-pooling",
       {{7, 8, 3}, {convolution(5, 3), average_pool(3, 1), {kRelu}, {kFlatten}, dense(3)}}},
      {"average-pooling with gaps",
       {{9, 8, 2}, {convolution(5, 3), average_pool(2, 4), {kFlatten}, dense(3)}}},
      {"global pooling",
       {{5, 6, 2}, {convolution(21, 3), {kRelu}, {kGlobalAveragePool}, dense(3)}}},
      {"global pooling of a sequence", {{7, 5}, {dense(19), {kGlobalAveragePool}, dense(3)}}},
  };
}

/// Normalisations and activations.
inline std::vector<NamedSpec> norm_specs() {
  return {
      {"gelu", {{9}, {dense(35), {kGelu}, dense(4)}}},
      {"tanh", {{9}, {dense(35), {kTanh}, dense(4)}}},
      {"sigmoid", {{9}, {{kSigmoid}, dense(35), {kSigmoid}, dense(4)}}},
      {"batch norm of a vector",
       {{9}, {dense(19), {kBatchNorm}, {kRelu}, dense(8), {kBatchNorm}, {kTanh}, dense(3)}}},
      {"batch norm of an image",
       {{6, 5, 2},
        {convolution(19, 3),
         {kBatchNorm},
         {kRelu},
         convolution(3, 1),
         {kBatchNorm},
         {kFlatten},
         dense(3)}}},
      {"batch norm of the input", {{4, 3}, {{kBatchNorm}, {kFlatten}, dense(3)}}},
      {"group norm",
       {{6, 5, 2},
        {convolution(20, 3),
         group_norm(4),
         {kRelu},
         convolution(6, 1),
         group_norm(1),
         {kFlatten},
         dense(3)}}},
      {"group norm per channel", {{5, 5, 3}, {group_norm(3), {kFlatten}, dense(3)}}},
      {"group norm of a vector", {{9}, {dense(24), group_norm(3), {kRelu}, dense(3)}}},
      {"group norm of a sequence", {{6, 4}, {dense(34), group_norm(2), {kFlatten}, dense(3)}}},
      {"layer norm of a vector", {{9}, {dense(37), {kLayerNorm}, {kGelu}, dense(3)}}},
      {"layer norm of a sequence", {{6, 4}, {dense(19), {kLayerNorm}, {kRelu}, dense(3)}}},
      {"layer norm of an image",
       {{4, 5, 3}, {{kLayerNorm}, convolution(7, 3), {kLayerNorm}, {kFlatten}, dense(3)}}},
      {"separable convolutions",
       {{9, 9, 1},
        {convolution(16, 3, 2),
         group_norm(4),
         {kRelu},
         depthwise(3),
         group_norm(4),
         {kRelu},
         convolution(24, 1),
         group_norm(8),
         {kRelu},
         {kGlobalAveragePool},
         dense(4)}}},
  };
}

/// Residual connections.
inline std::vector<NamedSpec> residual_specs() {
  return {
      {"residual of a dense layer",
       {{9}, {dense(13), {kRelu}, dense(13), add(2), {kRelu}, dense(3)}}},
      {"residual from before a relu that fuses otherwise",
       {{5, 4, 3}, {convolution(6, 3), {kRelu}, add(2), {kFlatten}, dense(3)}}},
      {"two residuals from one source",
       {{8}, {dense(11), {kTanh}, dense(11), add(2), dense(11), add(4), dense(3)}}},
      {"residual from the input", {{6, 6, 4}, {convolution(4, 3), add(2), {kFlatten}, dense(3)}}},
      {"residual from the input, nothing trained below",
       {{6, 5, 4}, {{kRelu}, add(2), {kFlatten}, dense(3)}}},
      {"residual over pooling",
       {{6, 6, 3},
        {convolution(5, 3),
         max_pool(3, 1),
         convolution(5, 3, 1),
         max_pool(1),
         add(2),
         {kFlatten},
         dense(3)}}},
      {"residual around a norm",
       {{5, 5, 3},
        {convolution(8, 3),
         {kBatchNorm},
         {kRelu},
         add(3),
         group_norm(2),
         add(2),
         {kFlatten},
         dense(3)}}},
      {"nested residuals",
       {{7},
        {dense(9),
         dense(9),
         {kRelu},
         dense(9),
         add(3),
         {kTanh},
         dense(9),
         add(7),
         add(8),
         dense(3)}}},
      {"residual of a layer that does nothing", {{8}, {dense(6), {kFlatten}, add(2), dense(3)}}},
      {"residual of flattened outputs, then relu",
       {{8}, {dense(6), {kFlatten}, {kRelu}, add(2), dense(3)}}},
      {"residual of a sequence",
       {{5, 6}, {dense(7), {kGelu}, dense(7), add(3), {kLayerNorm}, dense(4)}}},
      {"residual as the scores", {{8}, {dense(4), {kTanh}, add(2)}}},
  };
}

/// Losses and targets.
inline std::vector<NamedSpec> loss_specs() {
  constexpr auto kMse = Loss::kMeanSquaredError;
  constexpr auto kBce = Loss::kBinaryCrossEntropy;
  return {
      {"squared error of a number", {{6}, {dense(5), {kRelu}, dense(1)}, kMse}},
      {"squared error of classes", {{6}, {dense(9), {kRelu}, dense(4)}, kMse}},
      {"logistic loss of two classes", {{6}, {dense(5), {kRelu}, dense(1)}, kBce}},
      {"logistic loss of classes", {{6}, {dense(5), {kRelu}, dense(4)}, kBce}},
      {"autoencoder", {{23}, {dense(9), {kRelu}, dense(23)}, kMse, Target::kInput}},
      {"autoencoder with logits", {{23}, {dense(9), {kRelu}, dense(23)}, kBce, Target::kInput}},
      {"convolutional autoencoder",
       {{5, 4, 2}, {convolution(3, 3), {kTanh}, convolution(2, 3)}, kMse, Target::kInput}},
      {"a prediction per step", {{5, 6}, {dense(7), {kTanh}, dense(4)}}},
  };
}

inline std::vector<NamedSpec> all_specs() {
  std::vector<NamedSpec> all = plain_specs();
  for (const auto& more : {window_specs(), norm_specs(), residual_specs(), loss_specs()}) {
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

}  // namespace covey::models::reference
