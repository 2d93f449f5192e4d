#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "network_plan.hpp"

namespace covey::models {

/// Walks the layers of a spec, carrying the shape of one example, and collects the stages. Each
/// layer's file has a function `plan_...` that checks the layer and adds its tensors and its stage.
class Planner {
 public:
  using Shape = std::vector<std::uint32_t>;

  Planner(const ModelSpec& spec, NetworkPlan& plan);
  Result<void> run();

  // ---- for the layers
  const LayerSpec& layer() const { return spec_.layers[index_]; }
  const Shape& shape() const { return shape_; }  ///< what the layer receives
  std::size_t shape_size() const;
  bool is_first() const { return index_ == 0; }
  /// The network's inputs are tokens in [0, vocabulary).
  void take_tokens(std::uint32_t vocabulary) { plan_.vocabulary = vocabulary; }
  /// "layer 3 (conv2d) " + why.
  Error refuse(const std::string& why) const;
  /// "28x28x1"
  static std::string text(const Shape& shape);
  /// Error unless the layer receives [height, width, channels] / [steps, features].
  Result<void> need_image() const;
  Result<void> need_sequence() const;
  /// Error where `weights` more parameters or `outputs` more values per example are too many.
  Result<void> check_sizes(std::uint64_t weights, std::uint64_t outputs) const;
  /// "conv" -> "conv1", "conv2", ... in the order of the calls.
  std::string number(std::string_view kind);
  /// Appends a tensor to the layout; its offset in the parameter vector.
  std::size_t add_tensor(std::string name, Shape shape, TensorInit init);
  /// Appends a stage whose output has this shape. multiply_adds: of one example's forward pass.
  void add_stage(Stage stage, Shape output_shape, double multiply_adds = 0);
  /// The last stage, if the layer before this one is carried out by it and no residual needs that
  /// layer's own output: then this layer may be fused into it. Else null.
  Stage* fusable();
  /// Marks this layer as carried out by the last stage (or, before any stage, by the input).
  void add_nothing(Shape output_shape) { shape_ = std::move(output_shape); }

 private:
  Result<void> check_input() const;
  /// Error where the layer sets something that its kind has no use for.
  Result<void> check_fields() const;
  Result<void> check_output();
  Result<void> add_layer();
  Result<void> add_residual();
  Result<void> check_back() const;

  const ModelSpec& spec_;
  NetworkPlan& plan_;
  Shape shape_;
  std::size_t index_ = 0;
  std::vector<bool> needed_by_residual_;  ///< by layer
  std::vector<std::size_t> produced_by_;  ///< by layer: stages so far, after it (0: the input)
  std::vector<Shape> output_shapes_;      ///< by layer
  std::vector<std::pair<std::string, std::size_t>> counts_;
};

}  // namespace covey::models
