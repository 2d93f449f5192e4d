#include <covey/client/trainer.hpp>
#include <covey/models/engine.hpp>

#include "contribution.hpp"
#include "plan_encodings.hpp"
#include "update_encoder.hpp"

namespace covey::client {

/// The layout of the plan's network. Of a TorchScript file only the number of parameters can be
/// known here, from the size of the model: one flat tensor has the same size as an fp32 or bf16
/// blob.
Result<void> EchoTrainer::plan_for(const TrainingTask& task) {
  const ModelSpec& spec = task.plan.model;
  if (!spec.torchscript.empty()) {
    COVEY_ASSIGN(const Encoding encoding, model_encoding(task.plan.precision));
    const std::size_t width = encoding == Encoding::kBf16 ? 2 : sizeof(float);
    layout_ = ModelLayout();
    layout_.append("parameters", {static_cast<std::uint32_t>(task.model.size() / width)});
    spec_.reset();
    return {};
  }
  if (spec_ == spec && precision_ == task.plan.precision) return {};
  spec_.reset();
  COVEY_ASSIGN(const models::Network network, models::make_network(spec, task.plan.precision));
  layout_ = network.layout();
  spec_ = spec;
  precision_ = task.plan.precision;
  return {};
}

Result<TrainedUpdate> EchoTrainer::train(const TrainingTask& task, const TrainingControl& control) {
  COVEY_ASSIGN(const PlanEncodings encodings, encodings_of(task.plan));
  if (control.cancelled && control.cancelled->load(std::memory_order_relaxed)) {
    return failed("the load test's update was cancelled");
  }
  COVEY_TRY(plan_for(task));
  const std::size_t expected = encoded_size(encodings.model, layout_);
  if (task.model.size() != expected) {
    return malformed("the model has " + std::to_string(task.model.size()) +
                     " bytes, the plan's network takes " + std::to_string(expected));
  }
  // Small enough that a model stays finite for any number of rounds of a load test.
  constexpr float kLargest = 1e-3f;
  ParameterVector update(layout_.size());
  RandomStream random(task.plan.seed, RandomPurpose::kLoadTest, task.round, task.client);
  for (float& value : update.span()) {
    const auto unit = static_cast<float>(random.next_u32() >> 8) * 0x1.0p-24f;  // uniform in [0, 1)
    value = kLargest * (2 * unit - 1);
  }

  // A strategy that divides by a sum of scalars (q-FedAvg) needs them positive. One that is not
  // built in cannot be asked, and most have none.
  std::vector<double> scalars;
  const auto strategy = strategies::Registry::with_built_ins().make(task.plan.strategy,
                                                                    task.plan.strategy_parameters);
  if (strategy) scalars.assign((*strategy)->num_scalars(), 1.0);
  if (control.steps_done) control.steps_done->store(1, std::memory_order_relaxed);
  if (needs_privacy(task.plan)) {
    const auto secrets = privacy::system_secrets();
    return make_private(task, layout_,
                        {.update = update.span(),
                         .weights = {.weight = 1, .scalars = std::move(scalars)},
                         .num_examples = 1,
                         .steps = 1,
                         .train_loss = 0},
                        *secrets);
  }

  TrainedUpdate trained;
  if (const auto plain = plain_encoding(encodings.update)) {
    trained.update = encode(*plain, layout_, update.span());
  } else {
    UpdateEncoder encoder;
    COVEY_ASSIGN(auto encoded, encoder.encode(encodings.update, layout_, task, update.span()));
    trained.update = std::move(encoded.bytes);
    trained.residual = std::move(encoded.residual);
  }
  trained.digest = sha256(trained.update.span());
  trained.weight = 1;
  trained.num_examples = 1;
  trained.steps = 1;
  trained.scalars = std::move(scalars);
  return trained;
}

}  // namespace covey::client
