#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <covey/bytes.hpp>
#include <covey/encoding.hpp>
#include <covey/model_spec.hpp>
#include <covey/models/network.hpp>
#include <covey/optimizer.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>

namespace covey::models {

/// Labels per example that a batch carries, and what its features are.
struct DataShape {
  std::size_t example_size = 0;        ///< floats of one example
  std::size_t labels_per_example = 1;  ///< > 1: a prediction per step of a sequence
  std::size_t classes = 0;             ///< outputs per prediction
  std::uint32_t vocabulary = 0;        ///< features are tokens below this; 0: they are numbers
};

/// Labels must be below this for a network of this shape: its classes; with one output 2 for bce, any
/// for mse; any where the target is the input.
std::size_t label_limit(const ModelSpec& spec, const DataShape& shape);

/// The seam between the trainers and what computes: one model, on one thread, from a round's weights to
/// the update. Implemented in fp32 (also with fake quantisation), bf16, int8, and by libtorch. Buffers
/// are made once and kept between rounds.
class Engine {
 public:
  virtual ~Engine() = default;

  virtual const ModelLayout& layout() const = 0;
  virtual DataShape data_shape() const = 0;

  /// Makes room for batches of this many examples. What is allocated here, or by the first use of it, is
  /// kept: the rounds that follow allocate nothing.
  virtual void reserve(std::size_t max_batch) = 0;
  virtual std::size_t max_batch() const = 0;

  /// Error where this engine cannot take steps of this optimiser, or on batches of this size.
  virtual Result<void> check_training(const OptimizerSpec& /*optimizer*/,
                                      std::size_t /*batch*/) const {
    return {};
  }
  /// The round's model, encoded as model_encoding(precision) says; training starts from it. Error:
  /// wrong size, or bytes that are no model.
  virtual Result<void> load(std::span<const std::byte> model) = 0;
  /// The same of bytes that are shared: an engine that can keeps its share of them instead of a copy, until
  /// the next load.
  virtual Result<void> load_shared(const SharedBytes& model) { return load(model.span()); }
  /// Forgets optimiser state, and seeds what training draws (dropout, stochastic rounding).
  virtual void begin_training(const OptimizerSpec& optimizer, RandomStream random) = 0;
  /// One step on a batch; returns its mean loss before the step (NaN or infinite: diverged).
  /// inputs: [n x example_size], labels: [n x labels_per_example].
  virtual double train_step(std::span<const float> inputs, std::span<const std::int32_t> labels,
                            float learning_rate, float proximal_mu) = 0;
  /// Loss and correct predictions at the weights as they are.
  virtual Evaluation evaluate(std::span<const float> inputs,
                              std::span<const std::int32_t> labels) = 0;

  /// Why the last step or evaluation gave NaN, where the engine knows more than that training
  /// diverged; empty otherwise.
  virtual std::string_view problem() const { return {}; }

  /// Whether every weight is finite.
  virtual bool finite() const = 0;
  /// ||w - w^t||^2.
  virtual double difference_squared_norm() const = 0;
  /// w - w^t. Error where this engine cannot encode so. `random`: for stochastic rounding.
  virtual Result<SharedBytes> encode_difference(Encoding encoding, RandomStream random) const = 0;
  /// w - w^t, R^d, in the memory that held w, which is the caller's now: a load comes before anything else
  /// is asked of this engine. Empty where it has no fp32 weights to give away.
  virtual ParameterVector take_difference() { return {}; }
  /// Frees what training and evaluation took beside the weights (activations, optimiser state); they make
  /// it again when they need it.
  virtual void release_scratch() {}
  /// w^t and w as fp32, R^d; empty where there are no such vectors.
  virtual std::span<const float> initial() const { return {}; }
  virtual std::span<const float> trained() const { return {}; }

  /// Bytes this engine holds: weights, activations, scratch.
  virtual std::size_t bytes() const = 0;
};

/// Makes the engine for a network and a precision ("fp32", "bf16", "qat-int8", "int8"). Error naming the
/// layer or the precision that it cannot do. Passed to whoever trains or evaluates, so that a program
/// with libtorch gives one that also knows TorchScript files.
using EngineFactory = std::function<Result<std::unique_ptr<Engine>>(
    const ModelSpec& spec, std::string_view precision)>;

/// The network that a precision trains: its layout is that of models and updates, also where they travel
/// in another encoding. ("qat-int8" appends the ranges of activations.)
Result<Network> make_network(const ModelSpec& spec, std::string_view precision);

/// Covey's own engines.
Result<std::unique_ptr<Engine>> make_engine(const ModelSpec& spec, std::string_view precision);

/// Precisions that make_engine knows, best first: what a device announces.
std::vector<std::string> supported_precisions();

}  // namespace covey::models
