#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/client/trainer.hpp>
#include <optional>

#include "encoding.hpp"

namespace covey::client {
namespace {

/// Batch of the pass over all local examples that computes F_k(w^t): large enough for efficient
/// matrix products, small enough for the workspace of a convolutional network (tens of megabytes).
constexpr std::size_t kEvaluationBatch = 256;

struct LossSum {
  double sum = 0;
  std::uint32_t steps = 0;
};

}  // namespace

/// What stays between rounds: network, strategy, and every buffer that training needs.
struct SgdTrainer::Engine {
  std::optional<models::Network> network;
  std::optional<models::Workspace> workspace;
  ParameterVector initial;  ///< w^t, R^d
  ParameterVector trained;  ///< w, R^d
  ParameterVector update;   ///< what the strategy contributes, R^d
  std::vector<float> features;
  std::vector<std::int32_t> labels;
  std::vector<std::uint32_t> order;

  std::string strategy_name;
  strategies::Parameters strategy_parameters;
  std::unique_ptr<strategies::Strategy> strategy;

  Result<void> use_network(const ModelSpec& spec);
  Result<void> use_strategy(const strategies::Registry& registry, const TrainingPlan& plan);
  void reserve(std::size_t batch, std::size_t num_examples);

  double initial_loss(const models::DataSet& data, std::span<const std::uint32_t> indices);
  Result<LossSum> run_epochs(const models::DataSet& data, const TrainingTask& task,
                             const TrainingControl& control, std::uint32_t epochs);
};

Result<void> SgdTrainer::Engine::use_network(const ModelSpec& spec) {
  if (network && network->spec() == spec) return {};
  workspace.reset();
  network.reset();
  COVEY_ASSIGN(network, models::Network::make(spec));
  const std::size_t d = network->num_parameters();
  initial = ParameterVector(d);
  trained = ParameterVector(d);
  update = ParameterVector(d);
  return {};
}

Result<void> SgdTrainer::Engine::use_strategy(const strategies::Registry& registry,
                                              const TrainingPlan& plan) {
  if (strategy && strategy_name == plan.strategy &&
      strategy_parameters == plan.strategy_parameters) {
    return {};
  }
  strategy.reset();
  COVEY_ASSIGN(strategy, registry.make(plan.strategy, plan.strategy_parameters));
  strategy_name = plan.strategy;
  strategy_parameters = plan.strategy_parameters;
  return {};
}

/// Buffers only grow, so devices of different sizes share one trainer without allocating.
void SgdTrainer::Engine::reserve(std::size_t batch, std::size_t num_examples) {
  if (!workspace || workspace->max_batch() < batch) workspace.emplace(*network, batch);
  if (features.size() < batch * network->inputs()) features.resize(batch * network->inputs());
  if (labels.size() < batch) labels.resize(batch);
  order.reserve(num_examples);
}

/// F_k(w^t): mean loss of all local examples at the round's model.
double SgdTrainer::Engine::initial_loss(const models::DataSet& data,
                                        std::span<const std::uint32_t> indices) {
  models::Evaluation total;
  const std::size_t batch = workspace->max_batch();
  for (std::size_t begin = 0; begin < indices.size(); begin += batch) {
    const auto part = indices.subspan(begin, std::min(batch, indices.size() - begin));
    const std::span inputs(features.data(), part.size() * network->inputs());
    const std::span targets(labels.data(), part.size());
    data.gather(part, inputs, targets);
    const auto evaluation = network->evaluate(*workspace, inputs, targets, initial.span());
    total.loss_sum += evaluation.loss_sum;
    total.examples += evaluation.examples;
  }
  return total.loss();
}

/// McMahan et al. 2017, Algorithm 1, ClientUpdate: E epochs over the shuffled examples in batches
/// of B.
Result<LossSum> SgdTrainer::Engine::run_epochs(const models::DataSet& data,
                                               const TrainingTask& task,
                                               const TrainingControl& control,
                                               std::uint32_t epochs) {
  const TrainingPlan& plan = task.plan;
  const models::SgdStep step{plan.learning_rate, strategy->local_rule().proximal_mu,
                             initial.span()};
  const std::size_t batch = plan.batch_size == 0 ? order.size() : plan.batch_size;
  RandomStream random(plan.seed, RandomPurpose::kTraining, task.round, task.client);
  LossSum loss;
  for (std::uint32_t epoch = 1; epoch <= epochs; ++epoch) {
    const bool short_of_time = control.wrap_up && control.wrap_up->load(std::memory_order_relaxed);
    if (epoch > 1 && short_of_time && plan.accept_partial_work) break;
    random.shuffle(std::span(order));
    for (std::size_t begin = 0; begin < order.size(); begin += batch) {
      if (control.cancelled && control.cancelled->load(std::memory_order_relaxed)) {
        return failed(
            fmt::format("training was cancelled in epoch {}, after step {}", epoch, loss.steps));
      }
      const auto part = std::span<const std::uint32_t>(order).subspan(
          begin, std::min(batch, order.size() - begin));
      const std::span inputs(features.data(), part.size() * network->inputs());
      const std::span targets(labels.data(), part.size());
      data.gather(part, inputs, targets);
      const double batch_loss =
          network->train_step(*workspace, inputs, targets, trained.span(), step);
      ++loss.steps;
      if (!std::isfinite(batch_loss)) {
        return failed(fmt::format(
            "the loss became {} in epoch {}, step {}, at learning rate {}; a "
            "smaller one may help",
            std::isnan(batch_loss) ? "NaN" : "infinite", epoch, loss.steps, plan.learning_rate));
      }
      loss.sum += batch_loss;
      if (control.steps_done) control.steps_done->store(loss.steps, std::memory_order_relaxed);
    }
  }
  return loss;
}

namespace {

/// Epochs that the host leaves time for, or why the task cannot be carried out with them.
Result<std::uint32_t> epochs_to_run(const TrainingPlan& plan, const TrainingControl& control) {
  if (plan.local_epochs == 0) return failed("the plan asks for 0 local epochs");
  if (control.max_epochs >= plan.local_epochs) return plan.local_epochs;
  if (control.max_epochs == 0 || !plan.accept_partial_work) {
    return failed(
        fmt::format("not enough time: {} of {} local epochs, and the plan {}", control.max_epochs,
                    plan.local_epochs,
                    plan.accept_partial_work ? "needs at least one" : "accepts no partial work"));
  }
  return control.max_epochs;
}

Result<void> check_data(const models::DataSet& data, const models::Network& network) {
  if (data.example_size() != network.inputs()) {
    return failed(fmt::format("the local examples have {} features, the plan's network takes {}",
                              data.example_size(), network.inputs()));
  }
  if (data.classes() > network.classes()) {
    return failed(
        fmt::format("the local examples have {} classes, the plan's network tells {} apart",
                    data.classes(), network.classes()));
  }
  return {};
}

Result<void> check_contribution(const strategies::Contribution& contribution,
                                const strategies::Strategy& strategy) {
  const bool weight_fits = std::isfinite(contribution.weight) && contribution.weight >= 0;
  const bool scalars_finite =
      std::ranges::all_of(contribution.scalars, [](double x) { return std::isfinite(x); });
  if (!weight_fits || !scalars_finite) {
    return failed(
        fmt::format("strategy {} gave the update a weight or scalar that is negative or not finite",
                    strategy.name()));
  }
  if (contribution.scalars.size() != strategy.num_scalars()) {
    return failed(fmt::format("strategy {} gave {} scalars, it declares {}", strategy.name(),
                              contribution.scalars.size(), strategy.num_scalars()));
  }
  return {};
}

}  // namespace

SgdTrainer::SgdTrainer(const models::DataSet& data, const strategies::Registry& registry)
    : data_(data), registry_(registry), engine_(std::make_unique<Engine>()) {}
SgdTrainer::~SgdTrainer() = default;

Result<TrainedUpdate> SgdTrainer::train(const TrainingTask& task, const TrainingControl& control) {
  const TrainingPlan& plan = task.plan;
  COVEY_TRY(check_encoding(plan));
  if (indices_.empty()) return failed("this device has no training examples");
  COVEY_ASSIGN(const std::uint32_t epochs, epochs_to_run(plan, control));
  Engine& engine = *engine_;
  COVEY_TRY(engine.use_network(plan.model));
  COVEY_TRY(check_data(data_, *engine.network));
  COVEY_TRY(engine.use_strategy(registry_, plan));
  const strategies::LocalRule rule = engine.strategy->local_rule();

  const std::size_t n = indices_.size();
  std::size_t batch = plan.batch_size == 0 ? n : std::min<std::size_t>(plan.batch_size, n);
  if (rule.needs_initial_loss) batch = std::max(batch, std::min(kEvaluationBatch, n));
  engine.reserve(batch, n);
  engine.order.assign(indices_.begin(), indices_.end());
  COVEY_TRY(decode_fp32(task.model.span(), engine.initial.span()));
  std::ranges::copy(engine.initial.span(), engine.trained.data());

  strategies::LocalOutcome outcome;
  if (rule.needs_initial_loss) {
    outcome.initial_loss = engine.initial_loss(data_, indices_);
    if (!std::isfinite(outcome.initial_loss)) {
      return failed("the loss of the local examples at the round's model is not finite");
    }
  }
  COVEY_ASSIGN(const LossSum loss, engine.run_epochs(data_, task, control, epochs));
  outcome.initial = engine.initial.span();
  outcome.trained = engine.trained.span();
  outcome.num_examples = n;
  outcome.steps = loss.steps;
  outcome.learning_rate = plan.learning_rate;

  if (!all_finite(engine.trained.span())) {
    return failed(fmt::format("the parameters are not finite after {} steps at learning rate {}",
                              loss.steps, plan.learning_rate));
  }
  COVEY_ASSIGN(auto contribution, engine.strategy->contribute(outcome, engine.update.span()));
  COVEY_TRY(check_contribution(contribution, *engine.strategy));
  if (!all_finite(engine.update.span())) return failed("the update is not finite");

  TrainedUpdate trained;
  trained.update = encode_fp32(engine.update.span());
  trained.digest = sha256(trained.update.span());
  trained.weight = contribution.weight;
  trained.scalars = std::move(contribution.scalars);
  trained.num_examples = n;
  trained.steps = loss.steps;
  trained.train_loss = loss.sum / loss.steps;
  return trained;
}

}  // namespace covey::client
