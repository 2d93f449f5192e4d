#include <covey/client/trainer.hpp>
#include <covey/models/network.hpp>

#include "encoding.hpp"

namespace covey::client {

Result<TrainedUpdate> EchoTrainer::train(const TrainingTask& task, const TrainingControl& control) {
  COVEY_TRY(check_encoding(task.plan));
  if (control.cancelled && control.cancelled->load(std::memory_order_relaxed)) {
    return failed("the load test's update was cancelled");
  }
  if (task.model.size() % sizeof(float) != 0) {
    return malformed(std::to_string(task.model.size()) + " bytes of model are no fp32 parameters");
  }
  // Small enough that a model stays finite for any number of rounds of a load test.
  constexpr float kLargest = 1e-3f;
  ParameterVector update(task.model.size() / sizeof(float));
  RandomStream random(task.plan.seed, RandomPurpose::kLoadTest, task.round, task.client);
  for (float& value : update.span()) {
    const auto unit = static_cast<float>(random.next_u32() >> 8) * 0x1.0p-24f;  // uniform in [0, 1)
    value = kLargest * (2 * unit - 1);
  }

  TrainedUpdate trained;
  trained.update = encode_fp32(update.span());
  trained.digest = sha256(trained.update.span());
  trained.weight = 1;
  trained.num_examples = 1;
  trained.steps = 1;
  // A strategy that divides by a sum of scalars (q-FedAvg) needs them positive. One that is not
  // built in cannot be asked, and most have none.
  const auto strategy = strategies::Registry::with_built_ins().make(task.plan.strategy,
                                                                    task.plan.strategy_parameters);
  if (strategy) trained.scalars.assign((*strategy)->num_scalars(), 1.0);
  if (control.steps_done) control.steps_done->store(1, std::memory_order_relaxed);
  return trained;
}

}  // namespace covey::client
