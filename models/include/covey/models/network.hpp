#pragma once

#include <covey/model_spec.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace covey::models {

class Optimizer;

/// The step that follows a gradient g: w <- w - learning_rate * (g + proximal_mu * (w - anchor) +
/// correction), or what an optimiser makes of that sum.
struct SgdStep {
  float learning_rate = 0.1f;
  float proximal_mu = 0;
  std::span<const float> anchor{};      ///< w^t, R^d; read only if proximal_mu > 0
  std::span<const float> correction{};  ///< R^d or empty: control variates (Karimireddy et al. 2020)
  Optimizer* optimizer = nullptr;  ///< null: plain SGD, in the pass that computes the gradient
  std::uint64_t random_key = 0;    ///< what dropout draws from; another one for each step
  /// Where loss and gradient are taken, R^d; empty: at the parameters themselves. Else the step still
  /// moves the parameters: straight-through estimation passes their rounded values here.
  std::span<const float> evaluated_at{};
};

struct Evaluation {
  double loss_sum = 0;         ///< over examples, or over the predictions of sequences
  std::uint64_t correct = 0;   ///< 0 where the target is the input: there is no right or wrong
  std::uint64_t examples = 0;  ///< examples, or predictions of sequences that have a target

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
  /// For quantisation-aware training: the input and the outputs of dense and convolution layers are
  /// rounded to int8 and back. Their ranges, one float each, end the layout: "input.range",
  /// "dense1.range", ...; training moves them, initialise() leaves them 0, which is not yet known.
  /// Error naming the first layer that the integer engine (QuantisedModel) does not know.
  static Result<Network> make_quantisation_aware(const ModelSpec& spec);

  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;
  ~Network();

  const ModelSpec& spec() const;
  const ModelLayout& layout() const;
  std::size_t num_parameters() const { return layout().size(); }
  std::size_t inputs() const;   ///< floats of one example
  std::size_t classes() const;  ///< outputs of one prediction
  /// Predictions of one example, each with a label: 1, or the steps of a sequence.
  std::size_t predictions() const;
  std::uint32_t vocabulary() const;  ///< inputs are tokens below this; 0: they are numbers
  /// Floating-point operations of one training step per example (forward + backward).
  double training_flops_per_example() const;

  /// As ModelSpec::initialisation says.
  void initialise(std::span<float> parameters, RandomStream random) const;

  /// One step on a batch, in place. inputs: [batch x inputs()], row-major; labels: [batch x
  /// predictions()], kNoLabel where a prediction has no target. Returns the batch's mean loss before
  /// the step. Allocates nothing.
  double train_step(Workspace& workspace, std::span<const float> inputs,
                    std::span<const std::int32_t> labels, std::span<float> parameters,
                    const SgdStep& step) const;

  /// Mean gradient of the loss over the batch, R^d, as in training (batch statistics; dropout by
  /// `random_key`). Returns the mean loss.
  double gradient(Workspace& workspace, std::span<const float> inputs,
                  std::span<const std::int32_t> labels, std::span<const float> parameters,
                  std::span<float> gradient, std::uint64_t random_key = 0) const;

  /// Loss and correct predictions of a batch.
  Evaluation evaluate(Workspace& workspace, std::span<const float> inputs,
                      std::span<const std::int32_t> labels,
                      std::span<const float> parameters) const;

  /// layer: index in the spec of the layer (with its relu) that gave these outputs of a whole batch,
  /// or of a part of it.
  using Observer = std::function<void(std::size_t layer, std::span<const float> outputs)>;
  /// Shows what every layer gives in evaluation.
  void observe(Workspace& workspace, std::span<const float> inputs,
               std::span<const float> parameters, const Observer& observer) const;

  /// For this folder's own files: complete in network_plan.hpp.
  struct Plan;
  const Plan& plan() const { return *plan_; }

 private:
  explicit Network(std::unique_ptr<const Plan> plan);
  std::unique_ptr<const Plan> plan_;
};

struct WorkspaceOptions {
  std::size_t max_batch = 1;
  bool training = true;         ///< false: for evaluate() only, which takes far less
  bool keeps_gradient = false;  ///< a step with an optimiser needs the whole gradient, R^d
};

/// Every buffer that training and evaluation need, for batches of up to `max_batch`; planned and
/// allocated once, buffers that do not live at the same time in the same place. One thread at a
/// time.
class Workspace {
 public:
  Workspace(const Network& network, const WorkspaceOptions& options);
  /// For training with plain SGD.
  Workspace(const Network& network, std::size_t max_batch);
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;
  ~Workspace();

  std::size_t max_batch() const;
  std::size_t bytes() const;

  struct Buffers;  ///< complete in workspace.hpp

 private:
  friend class Network;
  std::unique_ptr<Buffers> buffers_;
};

/// Instruction set the kernels run with: "sse2", "avx2" or "avx512" on x86-64, chosen at start from
/// what the processor has; the environment variable COVEY_ISA lowers it. Results differ in the last
/// bits between instruction sets, never between threads or runs.
const char* kernel_instruction_set();

}  // namespace covey::models
