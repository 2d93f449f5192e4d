#pragma once

#include <covey/messages.hpp>
#include <covey/result.hpp>
#include <covey/strategies/registry.hpp>
#include <cstdint>

/// How much memory a plan takes, before anything is downloaded for it.
namespace covey::client {

/// What a device has in memory anyway, and works on.
struct MemoryBase {
  std::uint64_t num_examples = 0;
  std::uint64_t process_bytes = 0;   ///< resident between tasks, with the data if they stay
  std::uint64_t data_bytes = 0;   ///< of the examples, where they are only in memory for a training
};

/// Bytes that are resident at the worst moment, by what they are for. A trainer that frees what it
/// needs no more (SgdTrainer::free_after_training) stays below `peak`, and not far below.
struct MemoryEstimate {
  std::uint64_t base = 0;      ///< the process, its code for training, the examples
  std::uint64_t model = 0;     ///< the round's, as it came
  std::uint64_t weights = 0;   ///< that move
  std::uint64_t scratch = 0;   ///< activations, gradients, optimiser, the batch: while training
  std::uint64_t update = 0;    ///< beside the weights, while the update is made of them
  std::uint64_t residual = 0;  ///< of error feedback, from earlier rounds
  std::uint64_t masking = 0;   ///< the packed update and the same masked, behind the training

  std::uint64_t peak() const;
};

/// Error for a plan that this build cannot carry out, or whose needs it cannot tell (a TorchScript
/// file).
Result<MemoryEstimate> estimate_memory(const TrainingPlan& plan,
                                       const strategies::Registry& registry,
                                       const MemoryBase& base);

/// Error, a sentence with figures, where the plan's peak is above `max_bytes`. 0: anything goes.
Result<void> check_memory(const TrainingPlan& plan, const strategies::Registry& registry,
                          const MemoryBase& base, std::uint64_t max_bytes);

/// What of this process is resident now; 0 where the system does not tell.
std::uint64_t resident_bytes();

}  // namespace covey::client
