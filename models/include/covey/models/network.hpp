#pragma once

#include <covey/model_spec.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace covey::models {

/// The optimiser step that follows a gradient: w <- w - learning_rate * (g + proximal_mu * (w -
/// anchor)).
struct SgdStep {
  float learning_rate = 0.1f;
  float proximal_mu = 0;
  std::span<const float> anchor{};  ///< w^t, R^d; read only if proximal_mu > 0
};

struct Evaluation {
  double loss_sum = 0;  ///< of softmax cross-entropy, over examples
  std::uint64_t correct = 0;
  std::uint64_t examples = 0;

  double loss() const { return examples == 0 ? 0 : loss_sum / static_cast<double>(examples); }
  double accuracy() const {
    return examples == 0 ? 0 : static_cast<double>(correct) / static_cast<double>(examples);
  }
};

class Workspace;

/// A network planned from its description: shapes, offsets and buffer sizes are known before the
/// first step. Immutable: any thread may use it, each with a Workspace of its own.
class Network {
 public:
  /// Error naming the layer and the shapes when they do not fit.
  static Result<Network> make(const ModelSpec& spec);

  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;
  ~Network();

  const ModelSpec& spec() const;
  const ModelLayout& layout() const;
  std::size_t num_parameters() const { return layout().size(); }
  std::size_t inputs() const;   ///< floats of one example
  std::size_t classes() const;  ///< outputs of the last layer
  /// Floating-point operations of one training step per example (forward + backward).
  double training_flops_per_example() const;

  /// Uniform in +-1/sqrt(fan_in) for weights and biases (He et al. 2015 as PyTorch applies it).
  void initialise(std::span<float> parameters, RandomStream random) const;

  /// One SGD step on a batch, in place. inputs: [batch x inputs()], row-major; labels: [batch].
  /// Returns the batch's mean loss before the step. Allocates nothing.
  double train_step(Workspace& workspace, std::span<const float> inputs,
                    std::span<const std::int32_t> labels, std::span<float> parameters,
                    const SgdStep& step) const;

  /// Mean gradient of the loss over the batch, R^d. Returns the mean loss.
  double gradient(Workspace& workspace, std::span<const float> inputs,
                  std::span<const std::int32_t> labels, std::span<const float> parameters,
                  std::span<float> gradient) const;

  /// Loss and correct predictions of a batch.
  Evaluation evaluate(Workspace& workspace, std::span<const float> inputs,
                      std::span<const std::int32_t> labels,
                      std::span<const float> parameters) const;

 private:
  friend class Workspace;
  struct Plan;
  explicit Network(std::unique_ptr<const Plan> plan);
  std::unique_ptr<const Plan> plan_;
};

/// Every buffer that training and evaluation need, for batches of up to `max_batch`; allocated
/// once. One thread at a time.
class Workspace {
 public:
  Workspace(const Network& network, std::size_t max_batch);
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;
  ~Workspace();

  std::size_t max_batch() const;
  std::size_t bytes() const;

 private:
  friend class Network;
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

/// Instruction set the kernels run with: "sse2", "avx2" or "avx512" on x86-64, chosen at start from
/// what the processor has; the environment variable COVEY_ISA lowers it. Results differ in the last
/// bits between instruction sets, never between threads or runs.
const char* kernel_instruction_set();

}  // namespace covey::models
