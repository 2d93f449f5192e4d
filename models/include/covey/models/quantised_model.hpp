#pragma once

#include <covey/model_spec.hpp>
#include <covey/models/network.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace covey::models {

/// A trained network for devices where floating point is dear: int8 weights with a scale per output
/// channel, int8 activations with one fixed scale per layer, int32 sums and biases, and between
/// layers a multiplication by a fixed-point number (Jacob et al. 2018, "Quantization and Training
/// of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 2). Floats appear
/// only where the inputs are quantised and where scores are handed out. Results are the same bits
/// on every instruction set and do not depend on how examples are batched. Holds its buffers: one
/// thread at a time.
///
/// Layers: dense, conv2d (same padding, stride 1), max-pool2d (window = stride), flatten, relu.
class QuantisedModel {
 public:
  /// parameters: R^d of Network's layout. activation_ranges: the largest |x| of the network's input
  /// and of the output of every dense and conv2d layer, after its relu, in order. A range of zero
  /// means that nothing but zeros was seen. The last layer's range is stored but not needed. Error
  /// naming a layer that integers do not know, or a parameter or range that is no number.
  static Result<QuantisedModel> make(const ModelSpec& spec, std::span<const float> parameters,
                                     std::span<const float> activation_ranges);
  QuantisedModel(QuantisedModel&&) noexcept;
  QuantisedModel& operator=(QuantisedModel&&) noexcept;
  ~QuantisedModel();

  const ModelSpec& spec() const;
  std::size_t inputs() const;
  std::size_t classes() const;
  std::size_t num_parameters() const;
  /// Weights, biases and multipliers, and the buffers that inference takes.
  std::size_t bytes() const;

  /// inputs: [n x inputs()]; logits: [n x classes()], in the units of the trained network; NaN for
  /// a batch with inputs that are not finite. Allocates nothing.
  void predict(std::span<const float> inputs, std::span<float> logits);
  /// Loss and correct predictions of any number of examples. Allocates nothing.
  Evaluation evaluate(std::span<const float> inputs, std::span<const std::int32_t> labels);

  /// A file's content, little-endian: magic "COVEYQ8" and a zero, version, network description,
  /// activation ranges, the parameters as an "int8" blob, SHA-256 of all that.
  std::vector<std::byte> serialise() const;
  /// Error saying what is wrong with the bytes; a size read from them is checked before it is used.
  static Result<QuantisedModel> parse(std::span<const std::byte> bytes);
  /// Written under another name first and renamed, so that a reader never sees half a file.
  Result<void> save(const std::string& path) const;
  static Result<QuantisedModel> load(const std::string& path);

 private:
  struct State;
  explicit QuantisedModel(std::unique_ptr<State> state);
  static Result<QuantisedModel> assemble(const ModelSpec& spec, std::span<const std::byte> blob,
                                         std::span<const float> activation_ranges);
  std::unique_ptr<State> state_;
};

}  // namespace covey::models
