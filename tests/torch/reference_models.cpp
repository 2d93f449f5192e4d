#include "reference_models.hpp"

#include <ATen/ATen.h>

#include <covey/models/data_set.hpp>

namespace covey::torch_tests {
namespace {

at::Tensor dense(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& bias) {
  return at::matmul(x, weights) + bias;
}

/// Convolution with same padding of a stride-1 kernel [k x k x in x out], relu, 2x2 pooling.
at::Tensor convolve(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& bias) {
  const std::int64_t padding = (weights.size(0) - 1) / 2;
  const at::Tensor y =
      at::conv2d(x, weights.permute({3, 2, 0, 1}), bias, {1, 1}, {padding, padding});
  return at::max_pool2d(at::relu(y), {2, 2});
}

/// LSTM with peepholes (Gers and Schmidhuber 2000): the input and the forget gate see the cell
/// before the step, the output gate the one after. Gates in the order input, forget, cell, output;
/// peepholes input, forget, output.
at::Tensor peephole_lstm(const at::Tensor& x, const at::Tensor& input_weights,
                         const at::Tensor& recurrent_weights, const at::Tensor& bias,
                         const at::Tensor& peepholes) {
  const std::int64_t batch = x.size(0), steps = x.size(1), units = recurrent_weights.size(0);
  const at::Tensor from_inputs = at::matmul(x, input_weights) + bias;  // [batch x steps x 4 units]
  const auto peephole = peepholes.reshape({3, units});
  at::Tensor state = at::zeros({batch, units}), cell = at::zeros({batch, units});
  std::vector<at::Tensor> states;
  for (std::int64_t t = 0; t < steps; ++t) {
    const at::Tensor sums = from_inputs.select(1, t) + at::matmul(state, recurrent_weights);
    const auto gates = sums.chunk(4, 1);
    const at::Tensor in = at::sigmoid(gates[0] + cell * peephole[0]);
    const at::Tensor forget = at::sigmoid(gates[1] + cell * peephole[1]);
    cell = forget * cell + in * at::tanh(gates[2]);
    state = at::sigmoid(gates[3] + cell * peephole[2]) * at::tanh(cell);
    states.push_back(state);
  }
  return at::stack(states, 1);
}

}  // namespace

ReferenceModel::ReferenceModel(std::string preset, const ModelLayout& layout,
                               std::span<const float> weights)
    : preset_(std::move(preset)) {
  for (const TensorLayout& tensor : layout.tensors()) {
    const std::vector<std::int64_t> sizes(tensor.shape.begin(), tensor.shape.end());
    at::Tensor values = at::empty(sizes);
    std::copy_n(weights.data() + tensor.offset, tensor.size(), values.data_ptr<float>());
    tensors_.push_back(values.requires_grad_());
  }
}

at::Tensor ReferenceModel::two_nn(const at::Tensor& images) const {
  const at::Tensor first = at::relu(dense(images, tensors_[0], tensors_[1]));
  const at::Tensor second = at::relu(dense(first, tensors_[2], tensors_[3]));
  return dense(second, tensors_[4], tensors_[5]);
}

at::Tensor ReferenceModel::cnn(const at::Tensor& images) const {
  const at::Tensor first = convolve(images.reshape({-1, 1, 28, 28}), tensors_[0], tensors_[1]);
  const at::Tensor second = convolve(first, tensors_[2], tensors_[3]);
  const at::Tensor features = second.permute({0, 2, 3, 1}).reshape({images.size(0), -1});
  const at::Tensor hidden = at::relu(dense(features, tensors_[4], tensors_[5]));
  return dense(hidden, tensors_[6], tensors_[7]);
}

at::Tensor ReferenceModel::char_lstm(const at::Tensor& tokens) const {
  const at::Tensor embedded = at::embedding(tensors_[0], tokens.to(at::kLong));
  const at::Tensor first =
      peephole_lstm(embedded, tensors_[1], tensors_[2], tensors_[3], tensors_[4]);
  const at::Tensor second =
      peephole_lstm(first, tensors_[5], tensors_[6], tensors_[7], tensors_[8]);
  return dense(second, tensors_[9], tensors_[10]);
}

at::Tensor ReferenceModel::forward(const at::Tensor& inputs) const {
  if (preset_ == "2nn") return two_nn(inputs);
  if (preset_ == "cnn") return cnn(inputs);
  return char_lstm(inputs);
}

double ReferenceModel::step(std::int64_t batch, std::span<const float> inputs,
                            std::span<const std::int32_t> labels, float learning_rate) {
  const auto predictions = static_cast<std::int64_t>(labels.size());
  const at::Tensor x = at::from_blob(const_cast<float*>(inputs.data()),
                                     {batch, static_cast<std::int64_t>(inputs.size()) / batch});
  const at::Tensor targets =
      at::from_blob(const_cast<std::int32_t*>(labels.data()), {predictions}, at::kInt)
          .to(at::kLong);
  const at::Tensor outputs = forward(x);
  const at::Tensor loss = at::cross_entropy_loss(outputs.reshape({predictions, -1}), targets, {},
                                                 at::Reduction::Mean, models::kNoLabel);
  loss.backward();
  const at::NoGradGuard no_grad;
  for (at::Tensor& tensor : tensors_) {
    tensor.sub_(tensor.grad(), learning_rate);
    tensor.mutable_grad().reset();
  }
  return loss.item<double>();
}

std::vector<float> ReferenceModel::weights() const {
  std::vector<float> all;
  for (const at::Tensor& tensor : tensors_) {
    const float* values = tensor.data_ptr<float>();
    all.insert(all.end(), values, values + tensor.numel());
  }
  return all;
}

}  // namespace covey::torch_tests
