#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/client/trainer.hpp>
#include <limits>
#include <new>
#include <utility>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "batches.hpp"
#include "contribution.hpp"
#include "plan_encodings.hpp"
#include "update_encoder.hpp"

namespace covey::client {
namespace {

struct LossSum {
  double sum = 0;
  std::uint32_t steps = 0;
};

/// What a task needs beside the plan, checked before training begins.
struct Preparation {
  std::uint32_t epochs = 0;
  PlanEncodings encodings;
  Batches batches;
};

/// Where a device's examples come from, and what it makes of them.
struct LocalExamples {
  const models::DataSet& data;
  const Deviation& deviation;
};

/// Rests while training has to. False once it is cancelled.
bool may_go_on(const TrainingControl& control) {
  if (control.paused != nullptr) control.paused->wait(true, std::memory_order_acquire);
  return control.cancelled == nullptr || !control.cancelled->load(std::memory_order_relaxed);
}

}  // namespace

/// What stays between rounds: engine, strategy, and every buffer that training needs.
struct SgdTrainer::Workbench {
  models::EngineFactory make_engine;
  std::unique_ptr<models::Engine> engine;
  ModelSpec spec;         ///< that `engine` was made for
  std::string precision;  ///< likewise
  models::DataShape shape;
  std::vector<float> features;
  std::vector<std::int32_t> labels;
  std::vector<std::uint32_t> order;

  std::string strategy_name;
  strategies::Parameters strategy_parameters;
  std::unique_ptr<strategies::Strategy> strategy;
  UpdateEncoder encoder;

  Result<void> use_engine(const TrainingPlan& plan);
  Result<void> use_strategy(const strategies::Registry& registry, const TrainingPlan& plan);
  void reserve(std::size_t batch, std::size_t num_examples);
  /// Frees what is needed no more once the epochs are over.
  void release_scratch();

  std::pair<std::span<const float>, std::span<const std::int32_t>> gather(
      const LocalExamples& local, std::span<const std::uint32_t> indices);
  Result<double> initial_loss(const LocalExamples& local, const TrainingControl& control,
                              std::span<const std::uint32_t> indices, std::size_t batch);
  Result<LossSum> run_epochs(const LocalExamples& local, const TrainingTask& task,
                             const TrainingControl& control, const Preparation& preparation);
  Result<SharedBytes> encode_update(const TrainingTask& task, Encoding encoding,
                                    const strategies::LocalOutcome& outcome);
  Result<ParameterVector> update_of(const TrainingTask& task, Encoding encoding,
                                    const strategies::LocalOutcome& outcome,
                                    const Deviation& deviation);
  Result<UpdateEncoder::Encoded> encode_deviating(const TrainingTask& task,
                                                  const CompressorSpec& compressor,
                                                  const strategies::LocalOutcome& outcome,
                                                  const Deviation& deviation);
};

Result<void> SgdTrainer::Workbench::use_engine(const TrainingPlan& plan) {
  if (engine && spec == plan.model && precision == plan.precision) return {};
  engine.reset();  // before the next one: there is room for one model
  COVEY_ASSIGN(engine, make_engine(plan.model, plan.precision));
  spec = plan.model;
  precision = plan.precision;
  shape = engine->data_shape();
  return {};
}

Result<void> SgdTrainer::Workbench::use_strategy(const strategies::Registry& registry,
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
void SgdTrainer::Workbench::reserve(std::size_t batch, std::size_t num_examples) {
  engine->reserve(batch);
  features.resize(std::max(features.size(), batch * shape.example_size));
  labels.resize(std::max(labels.size(), batch * shape.labels_per_example));
  order.reserve(num_examples);
}

void SgdTrainer::Workbench::release_scratch() {
  engine->release_scratch();
  features = {};
  labels = {};
  order = {};
}

std::pair<std::span<const float>, std::span<const std::int32_t>> SgdTrainer::Workbench::gather(
    const LocalExamples& local, std::span<const std::uint32_t> indices) {
  const std::span inputs(features.data(), indices.size() * shape.example_size);
  const std::span targets(labels.data(), indices.size() * shape.labels_per_example);
  local.data.gather(indices, inputs, targets);
  if (local.deviation.examples) local.deviation.examples(inputs, targets);
  return {inputs, targets};
}

/// F_k(w^t): mean loss of all local examples at the round's model.
Result<double> SgdTrainer::Workbench::initial_loss(const LocalExamples& local,
                                                   const TrainingControl& control,
                                                   std::span<const std::uint32_t> indices,
                                                   std::size_t batch) {
  models::Evaluation total;
  for (std::size_t begin = 0; begin < indices.size(); begin += batch) {
    if (!may_go_on(control)) return failed("training was cancelled before its first step");
    const auto [inputs, targets] =
        gather(local, indices.subspan(begin, std::min(batch, indices.size() - begin)));
    const auto evaluation = engine->evaluate(inputs, targets);
    total.loss_sum += evaluation.loss_sum;
    total.examples += evaluation.examples;
  }
  if (!std::isfinite(total.loss())) {
    if (!engine->problem().empty()) return failed(std::string(engine->problem()));
    return failed("the loss of the local examples at the round's model is not finite");
  }
  return total.loss();
}

/// McMahan et al. 2017, Algorithm 1, ClientUpdate: E epochs over the shuffled examples in batches
/// of B.
Result<LossSum> SgdTrainer::Workbench::run_epochs(const LocalExamples& local,
                                                  const TrainingTask& task,
                                                  const TrainingControl& control,
                                                  const Preparation& preparation) {
  const TrainingPlan& plan = task.plan;
  const float proximal_mu = strategy->local_rule().proximal_mu;
  RandomStream random(plan.seed, RandomPurpose::kTraining, task.round, task.client);
  engine->begin_training(plan.optimizer, RandomStream(plan.seed, RandomPurpose::kTrainingStep,
                                                      task.round, task.client));
  LossSum loss;
  for (std::uint32_t epoch = 1; epoch <= preparation.epochs; ++epoch) {
    const bool short_of_time = control.wrap_up && control.wrap_up->load(std::memory_order_relaxed);
    if (epoch > 1 && short_of_time && plan.accept_partial_work) break;
    random.shuffle(std::span(order));
    for (std::size_t begin = 0; begin < order.size(); begin += preparation.batches.training) {
      if (!may_go_on(control)) {
        return failed(
            fmt::format("training was cancelled in epoch {}, after step {}", epoch, loss.steps));
      }
      const auto part = std::span<const std::uint32_t>(order).subspan(
          begin, std::min(preparation.batches.training, order.size() - begin));
      const auto [inputs, targets] = gather(local, part);
      // The rows of the next batch come from memory while this one is computed.
      local.data.prefetch(std::span<const std::uint32_t>(order).subspan(
          begin + part.size(),
          std::min(preparation.batches.training, order.size() - begin - part.size())));
      const double batch_loss =
          engine->train_step(inputs, targets, plan.learning_rate, proximal_mu);
      ++loss.steps;
      if (!std::isfinite(batch_loss)) {
        if (!engine->problem().empty()) return failed(std::string(engine->problem()));
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

Result<SharedBytes> SgdTrainer::Workbench::encode_update(const TrainingTask& task,
                                                         Encoding encoding,
                                                         const strategies::LocalOutcome& outcome) {
  RandomStream random(task.plan.seed, RandomPurpose::kUpdateRounding, task.round, task.client);
  if (strategy->sends_difference()) {
    if (encoding == Encoding::kFp32) {
      ParameterVector difference = engine->take_difference();
      if (difference.size() > 0) return encode_fp32(std::move(difference));
    }
    return engine->encode_difference(encoding, random);
  }
  const std::size_t d = engine->layout().size();
  if (outcome.initial.size() != d || outcome.trained.size() != d) {
    return failed(
        fmt::format("strategy {} makes updates from fp32 weights, which training in {} does "
                    "not keep; fp32 does",
                    strategy->name(), precision));
  }
  ParameterVector update(d);
  COVEY_TRY(strategy->fill_update(outcome, update.span()));
  if (!std::ranges::all_of(update.span(), [](float value) { return std::isfinite(value); })) {
    return failed("the update is not finite");
  }
  return encode(encoding, engine->layout(), update.span(), &random);
}

/// The update in full precision, as the device sends it or makes it private.
Result<ParameterVector> SgdTrainer::Workbench::update_of(const TrainingTask& task,
                                                         Encoding encoding,
                                                         const strategies::LocalOutcome& outcome,
                                                         const Deviation& deviation) {
  ParameterVector update;
  if (encoding == Encoding::kFp32 && strategy->sends_difference()) {
    update = engine->take_difference();
  }
  if (update.size() == 0) {
    COVEY_ASSIGN(const SharedBytes bytes, encode_update(task, encoding, outcome));
    update = ParameterVector(engine->layout().size());
    COVEY_TRY(decode(encoding, engine->layout(), bytes.span(), update.span()));
  }
  if (deviation.update) COVEY_TRY(deviation.update(update.span()));
  return update;
}

Result<UpdateEncoder::Encoded> SgdTrainer::Workbench::encode_deviating(
    const TrainingTask& task, const CompressorSpec& compressor,
    const strategies::LocalOutcome& outcome, const Deviation& deviation) {
  const auto encoding = plain_encoding(compressor);
  if (encoding && !deviation.update) {
    COVEY_ASSIGN(SharedBytes bytes, encode_update(task, *encoding, outcome));
    return UpdateEncoder::Encoded{std::move(bytes), std::nullopt};
  }
  // Int8 training keeps no weights that a difference in another encoding could be made of.
  const Encoding plain = encoding == Encoding::kInt8 ? Encoding::kInt8 : Encoding::kFp32;
  COVEY_ASSIGN(ParameterVector update, update_of(task, plain, outcome, deviation));
  if (!encoding) return encoder.encode(compressor, engine->layout(), task, update.span());
  RandomStream random(task.plan.seed, RandomPurpose::kUpdateRounding, task.round, task.client);
  return UpdateEncoder::Encoded{encode(*encoding, engine->layout(), update.span(), &random),
                                std::nullopt};
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

std::string kind_of_features(std::uint32_t vocabulary) {
  return vocabulary == 0 ? "numbers" : fmt::format("tokens below {}", vocabulary);
}

Result<void> check_data(const models::DataSet& data, const models::DataShape& shape,
                        const ModelSpec& spec) {
  if (data.example_size() != shape.example_size) {
    return failed(fmt::format("the local examples have {} features, the plan's network takes {}",
                              data.example_size(), shape.example_size));
  }
  const bool tokens = data.vocabulary() > 0;
  if (tokens != (shape.vocabulary > 0) || data.vocabulary() > shape.vocabulary) {
    return failed(fmt::format("the plan's network takes {}, the local examples are {}",
                              kind_of_features(shape.vocabulary),
                              kind_of_features(data.vocabulary())));
  }
  if (data.labels_per_example() != shape.labels_per_example) {
    return failed(
        fmt::format("the local examples have {} labels each, the plan's network makes {} "
                    "predictions",
                    data.labels_per_example(), shape.labels_per_example));
  }
  if (data.classes() > models::label_limit(spec, shape)) {
    return failed(
        fmt::format("the local examples have {} classes, the plan's network tells {} apart",
                    data.classes(), models::label_limit(spec, shape)));
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

SgdTrainer::SgdTrainer(const models::DataSet& data, const strategies::Registry& registry,
                       models::EngineFactory make_engine, SecretsFactory make_secrets)
    : data_(&data),
      registry_(registry),
      make_secrets_(std::move(make_secrets)),
      workbench_(std::make_unique<Workbench>()) {
  workbench_->make_engine = std::move(make_engine);
}
SgdTrainer::~SgdTrainer() = default;

std::unique_ptr<privacy::SecretSource> system_secrets_for(RoundNumber, ClientId) {
  return privacy::system_secrets();
}

void SgdTrainer::release() {
  auto make_engine = std::move(workbench_->make_engine);
  workbench_ = std::make_unique<Workbench>();
  workbench_->make_engine = std::move(make_engine);
#if defined(__GLIBC__)
  malloc_trim(0);  // else what lies below the last block in use stays with the process
#endif
}

Result<TrainedUpdate> SgdTrainer::train(const TrainingTask& task, const TrainingControl& control) {
  try {
    auto trained = train_to_the_end(task, control);
    if (frees_) release();
    return trained;
  } catch (const std::bad_alloc&) {
    release();
    return failed(
        fmt::format("training this model of {:.1f} MiB in batches of {} takes more memory than "
                    "this device gives",
                    static_cast<double>(task.model.size()) / (1 << 20), task.plan.batch_size));
  }
}

Result<TrainedUpdate> SgdTrainer::train_to_the_end(const TrainingTask& task,
                                                   const TrainingControl& control) {
  const TrainingPlan& plan = task.plan;
  Workbench& bench = *workbench_;
  Preparation preparation;
  COVEY_ASSIGN(preparation.encodings, encodings_of(plan));
  if (indices_.empty()) return failed("this device has no training examples");
  COVEY_ASSIGN(preparation.epochs, epochs_to_run(plan, control));
  COVEY_TRY(bench.use_engine(plan));
  COVEY_TRY(check_data(*data_, bench.shape, plan.model));
  COVEY_TRY(bench.use_strategy(registry_, plan));

  const std::size_t n = indices_.size();
  preparation.batches = batches_of(plan, *bench.strategy, n, bench.shape.labels_per_example);
  COVEY_TRY(bench.engine->check_training(plan.optimizer, preparation.batches.training));
  bench.reserve(preparation.batches.largest(), n);
  bench.order.assign(indices_.begin(), indices_.end());
  COVEY_TRY(bench.engine->load_shared(task.model));

  const LocalExamples local{*data_, deviation_};
  strategies::LocalOutcome outcome;
  if (preparation.batches.evaluation > 0) {
    COVEY_ASSIGN(outcome.initial_loss,
                 bench.initial_loss(local, control, indices_, preparation.batches.evaluation));
  }
  COVEY_ASSIGN(const LossSum loss, bench.run_epochs(local, task, control, preparation));
  if (!bench.engine->finite()) {
    return failed(fmt::format("the parameters are not finite after {} steps at learning rate {}",
                              loss.steps, plan.learning_rate));
  }
  outcome.initial = bench.engine->initial();
  outcome.trained = bench.engine->trained();
  outcome.squared_norm = bench.engine->difference_squared_norm();
  outcome.num_examples = n;
  outcome.steps = loss.steps;
  outcome.learning_rate = plan.learning_rate;
  // Two finite weights may lie further apart than the largest float: then the sum is infinite.
  if (!std::isfinite(outcome.squared_norm)) return failed("the update is not finite");
  COVEY_ASSIGN(auto contribution, bench.strategy->weigh(outcome));
  COVEY_TRY(check_contribution(contribution, *bench.strategy));

  if (frees_) bench.release_scratch();
  const double train_loss = loss.sum / loss.steps;
  if (needs_privacy(plan)) {
    COVEY_ASSIGN(ParameterVector update,
                 bench.update_of(task, Encoding::kFp32, outcome, deviation_));
    const auto secrets = make_secrets_(task.round, task.client);
    return make_private(task, bench.engine->layout(),
                        {update.span(), std::move(contribution), n, loss.steps, train_loss},
                        *secrets);
  }
  TrainedUpdate trained;
  COVEY_ASSIGN(auto encoded,
               bench.encode_deviating(task, preparation.encodings.update, outcome, deviation_));
  trained.update = std::move(encoded.bytes);
  trained.residual = std::move(encoded.residual);
  trained.digest = trained.update.digest();
  trained.weight = contribution.weight;
  trained.scalars = std::move(contribution.scalars);
  trained.num_examples = n;
  trained.steps = loss.steps;
  trained.train_loss = train_loss;
  return trained;
}

}  // namespace covey::client
