#pragma once

#include <covey/bytes.hpp>
#include <covey/model_spec.hpp>
#include <covey/models/network.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace covey::models {

class Int8Network;

/// A model as it lives on the device: weights in int8 with a scale per output channel, biases in
/// single precision (0.2 percent of a model), in one allocation. There is no other copy of the
/// weights. Not synchronised.
class Int8Parameters {
 public:
  explicit Int8Parameters(const Int8Network& network);
  Int8Parameters(Int8Parameters&&) noexcept;
  Int8Parameters& operator=(Int8Parameters&&) noexcept;
  ~Int8Parameters();

  std::size_t bytes() const;

 private:
  friend class Int8Network;
  struct Storage;
  std::unique_ptr<Storage> storage_;
};

/// One optimiser step: w <- w - learning_rate * (g + proximal_mu * (w - anchor)), every change of a
/// weight rounded stochastically to whole steps of its scale.
struct Int8Step {
  float learning_rate = 0.1f;
  float proximal_mu = 0;
  const Int8Parameters* anchor = nullptr;  ///< w^t on the same scales; read only if proximal_mu > 0
  std::uint64_t seed = 0;  ///< names this step's random rounding: give every step another
};

/// Bytes that training or inference takes, by part and by layer.
struct Int8MemoryPlan {
  struct Layer {
    std::string name;             ///< "dense1", "conv1", "max-pool2d", "relu"
    std::size_t weights = 0;      ///< int8 weights, their scales, biases
    std::size_t activations = 0;  ///< int8 outputs of this layer, and where maxima were
    std::size_t scratch = 0;      ///< what this layer needs while it runs; layers share one buffer
  };
  std::vector<Layer> layers;
  std::size_t weights = 0;
  std::size_t activations = 0;  ///< inputs and outputs kept for the backward pass
  std::size_t gradients = 0;    ///< two int8 buffers used in turn, and the outputs' probabilities
  std::size_t scratch = 0;      ///< the largest layer's
  std::size_t total() const { return weights + activations + gradients + scratch; }
};

class Int8Workspace;

/// A network that trains in integers: int8 weights, activations and gradients, int32 sums.
/// Activations and gradients get one scale per tensor and batch from their largest value; gradients
/// and weight steps are rounded stochastically. The weights' gradient is scaled as in
/// quantisation-aware scaling (Lin et al. 2022, "On-Device Training Under 256KB Memory", eq. 7): in
/// units of the weight's own scale. The same seed gives the same bits on every instruction set.
///
/// Layers: dense, conv2d (same padding, stride 1), max-pool2d (window = stride), flatten, relu;
/// loss softmax cross-entropy. Immutable: any thread may use it, each with a workspace of its own.
class Int8Network {
 public:
  /// Error naming the layer that int8 training does not know, or the shapes that do not fit.
  static Result<Int8Network> make(const ModelSpec& spec);
  Int8Network(Int8Network&&) noexcept;
  Int8Network& operator=(Int8Network&&) noexcept;
  ~Int8Network();

  const ModelSpec& spec() const;
  const ModelLayout& layout() const;  ///< that of Network for the same spec
  std::size_t num_parameters() const { return layout().size(); }
  std::size_t inputs() const;
  std::size_t classes() const;
  /// The largest batch whose sums are sure to fit 32 bits.
  std::size_t max_batch() const;
  /// On this machine: operands take one byte or two, depending on the instruction set.
  /// Of an Int8Parameters.
  std::size_t parameter_bytes() const;
  Int8MemoryPlan training_memory(std::size_t max_batch) const;
  Int8MemoryPlan inference_memory(std::size_t max_batch) const;
  std::size_t training_bytes(std::size_t max_batch) const {
    return training_memory(max_batch).total();
  }
  std::size_t inference_bytes(std::size_t max_batch) const {
    return inference_memory(max_batch).total();
  }

  /// Replaces the parameters by those of an "int8" blob; they are untouched if it is refused.
  Result<void> load(Int8Parameters& parameters, std::span<const std::byte> blob) const;
  /// The parameters as an "int8" blob: what load() was given, after training.
  SharedBytes encode(const Int8Parameters& parameters) const;

  /// One step on a batch. inputs: [batch x inputs()]; labels: [batch]. Returns the batch's mean
  /// loss before the step. Inputs that are not finite, or a model whose outputs are not, give a NaN
  /// and change nothing. Allocates nothing.
  double train_step(Int8Workspace& workspace, std::span<const float> inputs,
                    std::span<const std::int32_t> labels, Int8Parameters& parameters,
                    const Int8Step& step) const;

  /// Loss and correct predictions of any number of examples, workspace.max_batch() at a time.
  Evaluation evaluate(Int8Workspace& workspace, std::span<const float> inputs,
                      std::span<const std::int32_t> labels, const Int8Parameters& parameters) const;

  /// Whether every parameter is finite (int8 weights always are).
  bool finite(const Int8Parameters& parameters) const;
  /// |w - w^t|^2 in the values' own units. `initial`: the blob that was loaded.
  double difference_squared_norm(const Int8Parameters& parameters,
                                 std::span<const std::byte> initial) const;
  /// w - w^t as an "int8" blob on the model's scales, clipped to 127 steps in either direction; the
  /// biases' differences as floats. Decoding it gives the update.
  SharedBytes encode_difference(const Int8Parameters& parameters,
                                std::span<const std::byte> initial) const;

 private:
  friend class Int8Parameters;
  friend class Int8Workspace;
  struct Plan;
  explicit Int8Network(std::unique_ptr<const Plan> plan);
  std::unique_ptr<const Plan> plan_;
};

/// Every buffer that steps on batches of up to `max_batch` need; allocated once. One thread at a
/// time.
class Int8Workspace {
 public:
  /// Error if `max_batch` is zero or beyond network.max_batch().
  static Result<Int8Workspace> make(const Int8Network& network, std::size_t max_batch);
  /// For evaluate() only: activations share two buffers.
  static Result<Int8Workspace> make_for_inference(const Int8Network& network,
                                                  std::size_t max_batch);
  Int8Workspace(Int8Workspace&&) noexcept;
  Int8Workspace& operator=(Int8Workspace&&) noexcept;
  ~Int8Workspace();

  std::size_t max_batch() const;
  std::size_t bytes() const;

 private:
  friend class Int8Network;
  struct Buffers;
  explicit Int8Workspace(std::unique_ptr<Buffers> buffers);
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace covey::models
