#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <covey/result.hpp>

namespace covey {

/// Kinds of layers that the wire can name. Values travel: never renumber.
enum class LayerKind : std::uint8_t {
  kDense = 1,               ///< units; on a sequence [steps, features] the same at every step
  kConv2d = 2,              ///< units filters, kernel, stride, padding
  kMaxPool2d = 3,           ///< kernel, stride
  kFlatten = 4,
  kRelu = 5,
  kDepthwiseConv2d = 6,     ///< one filter per channel: kernel, stride, padding
  kAveragePool2d = 7,       ///< kernel, stride
  kGlobalAveragePool = 8,   ///< [height, width, channels] -> [channels]
  kEmbedding = 9,           ///< tokens [steps] in [0, vocabulary) -> [steps, units]
  kLstm = 10,               ///< units, peephole, last_only
  kGru = 11,                ///< units, last_only
  kBatchNorm = 12,          ///< per channel (last dimension), over the batch and all positions
  kGroupNorm = 13,          ///< groups of channels, per example
  kLayerNorm = 14,          ///< over the last dimension
  kDropout = 15,            ///< rate
  kGelu = 16,               ///< x * Phi(x), by the error function
  kTanh = 17,
  kSigmoid = 18,
  kAdd = 19,                ///< residual: adds the output of the layer `back` layers before
};

enum class Padding : std::uint8_t { kSame = 0, kValid = 1 };

struct LayerSpec {
  LayerKind kind = LayerKind::kDense;
  std::uint32_t units = 0;   ///< dense, convolution (filters), embedding (dimension), lstm, gru
  std::uint32_t kernel = 0;  ///< side of a square kernel or pooling window
  std::uint32_t stride = 0;  ///< 0: 1 for convolutions, the window's side for pooling
  Padding padding = Padding::kSame;
  std::uint32_t vocabulary = 0;  ///< embedding
  std::uint32_t groups = 0;      ///< group-norm
  std::uint32_t back = 0;        ///< add: 1 is the layer before; 0 of the first layer is the input
  float rate = 0;                ///< dropout: chance that a value is dropped, in [0, 1)
  bool peephole = false;         ///< lstm: gates also see the cell (Gers and Schmidhuber 2000)
  bool last_only = false;        ///< lstm, gru: give the last step's state instead of all steps'
  bool operator==(const LayerSpec&) const = default;
};

/// What is minimised. Values travel: never renumber.
enum class Loss : std::uint8_t {
  kCrossEntropy = 1,        ///< softmax over the outputs; labels are classes
  kMeanSquaredError = 2,    ///< mean over the outputs of (y - target)^2
  kBinaryCrossEntropy = 3,  ///< mean over the outputs of the logistic loss; outputs are logits
};

/// What the outputs are compared with.
enum class Target : std::uint8_t {
  kLabel = 1,  ///< the example's class: one-hot over several outputs, the number itself over one
  kInput = 2,  ///< the example itself (an autoencoder; needs no labels)
};

/// How initial parameters are drawn. Values travel: never renumber.
enum class Initialisation : std::uint8_t {
  kFanIn = 1,          ///< weights and biases uniform in +-1/sqrt(fan_in), as PyTorch does
  kHeNormal = 2,       ///< weights N(0, 2/fan_in) (He et al. 2015), biases 0
  kHeUniform = 3,      ///< weights uniform in +-sqrt(6/fan_in), biases 0
  kGlorotNormal = 4,   ///< weights N(0, 2/(fan_in + fan_out)) (Glorot and Bengio 2010), biases 0
  kGlorotUniform = 5,  ///< weights uniform in +-sqrt(6/(fan_in + fan_out)), biases 0
};

/// A network as data: sent to devices, so that a new architecture needs no new client build.
struct ModelSpec {
  std::vector<std::uint32_t> input_shape = {};  ///< {features}, {steps} of tokens, {steps, features}, or
                                           ///< {height, width, channels}
  std::vector<LayerSpec> layers = {};
  Loss loss = Loss::kCrossEntropy;
  Target target = Target::kLabel;
  Initialisation initialisation = Initialisation::kFanIn;
  /// SHA-256 (64 hex digits) of a TorchScript file that every device has; then there are no layers.
  std::string torchscript = {};
  bool operator==(const ModelSpec&) const = default;
};

/// The networks that have a name:
/// "logistic" (input -> classes); "2nn" and "cnn" of McMahan et al. 2017, and their "char-lstm":
/// 8-d embedding, two LSTM of 256 with peepholes, dense, one prediction per step (866,578 parameters
/// with 258 symbols: 256 bytes, begin, end); "dscnn", depthwise separable convolutions (Zhang et al.
/// 2017, "Hello Edge", scaled to the input); "autoencoder" (dense bottleneck, mean squared error of
/// the reconstruction).
/// `input_shape`: of one example. Error where the preset cannot take it.
Result<ModelSpec> preset_model(std::string_view name, const std::vector<std::uint32_t>& input_shape,
                               std::uint32_t classes);
/// All names, for messages: "logistic, 2nn, ...".
std::string preset_names();

/// False where the target is the input: no prediction is right or wrong, the loss is all there is.
inline bool has_accuracy(const ModelSpec& spec) { return spec.target != Target::kInput; }

std::string_view to_string(LayerKind kind);
std::string_view to_string(Loss loss);
std::string_view to_string(Target target);
std::string_view to_string(Initialisation initialisation);

}  // namespace covey
