#include "attack.hpp"

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/random.hpp>
#include <covey/server/round_coordinator.hpp>
#include <numbers>
#include <numeric>
#include <string>
#include <utility>

namespace covey::simulation {
namespace {

// Of the test set: enough for a success rate to a percent.
constexpr std::size_t kTriggeredExamples = 2000;
constexpr std::size_t kPatch = 3;  // pixels, or features where there are no pixels

double normal_cdf(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }

/// The features of a trigger: the last 3 x 3 pixels of an image [height x width (x channels)], else
/// the first 3 features.
std::vector<std::size_t> trigger_features(const std::vector<std::uint32_t>& shape,
                                          std::size_t example_size) {
  std::vector<std::size_t> features;
  if (shape.size() < 2) {
    features.resize(std::min(kPatch, example_size));
    std::iota(features.begin(), features.end(), std::size_t{0});
    return features;
  }
  const std::size_t height = shape[0], width = shape[1];
  const std::size_t channels = example_size / (height * width);
  for (std::size_t row = height - std::min(kPatch, height); row < height; ++row) {
    for (std::size_t column = width - std::min(kPatch, width); column < width; ++column) {
      for (std::size_t c = 0; c < channels; ++c) {
        features.push_back((row * width + column) * channels + c);
      }
    }
  }
  return features;
}

}  // namespace

double alie_z(std::uint32_t n, std::uint32_t f) {
  const double supporters = std::floor(n / 2.0 + 1) - f;
  const double honest = static_cast<double>(n) - f;
  if (!(honest > 0)) return 0;
  // A majority of attackers needs no supporters: as far off as one of a thousand honest updates.
  const double share = std::clamp((honest - supporters) / honest, 0.5, 0.999);
  double low = 0, high = 4;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (normal_cdf(middle) < share ? low : high) = middle;
  }
  return share == 0.5 ? 0 : low;
}

Result<std::shared_ptr<Attack>> Attack::make(const Experiment& experiment) {
  const AttackConfig& config = experiment.config.attack;
  if (config.kind == "none" || config.share == 0) return std::shared_ptr<Attack>();
  std::shared_ptr<Attack> attack(new Attack());
  constexpr std::pair<const char*, Kind> kKinds[] = {{"label-flip", Kind::kLabelFlip},
                                                     {"sign-flip", Kind::kSignFlip},
                                                     {"gaussian", Kind::kGaussian},
                                                     {"alie", Kind::kAlie},
                                                     {"ipm", Kind::kIpm},
                                                     {"backdoor", Kind::kBackdoor}};
  const auto found =
      std::ranges::find(kKinds, config.kind, [](const auto& kind) { return kind.first; });
  if (found == std::end(kKinds)) {
    return invalid_argument("attack.kind \"" + config.kind +
                            "\" is unknown; there are label-flip, sign-flip, gaussian, alie, ipm "
                            "and backdoor");
  }
  attack->kind_ = found->second;
  attack->config_ = experiment.config;
  attack->population_ = experiment.population();
  attack->classes_ = static_cast<std::int32_t>(experiment.data.train.classes());
  const bool of_labels = attack->kind_ == Kind::kLabelFlip || attack->kind_ == Kind::kBackdoor;
  if (of_labels && experiment.plan.model.target == Target::kInput) {
    return invalid_argument("attack.kind \"" + config.kind +
                            "\" changes labels, and the model learns from none (model.target = "
                            "\"input\")");
  }
  const RunConfig& run = experiment.config;
  const std::uint32_t cohort =
      run.asynchronous.enabled()
          ? run.asynchronous.buffer
          : static_cast<std::uint32_t>(std::lround(
                server::largest_cohort(run.selection, experiment.population_with_data()) /
                run.selection.over_selection));
  attack->z_ = alie_z(cohort, static_cast<std::uint32_t>(std::lround(cohort * config.share)));
  // The round at hand and the one before it, whose last trainings may still run.
  constexpr std::uint32_t kSynchronous = 2;
  attack->rounds_ = run.asynchronous.enabled() ? run.asynchronous.max_staleness + 1 : kSynchronous;
  if (attack->kind_ == Kind::kBackdoor) COVEY_TRY(attack->plan_trigger(experiment));
  return attack;
}

bool Attack::is_attacker(ClientId client) const {
  return simulation::is_attacker(config_, client, population_);
}

Result<void> Attack::plan_trigger(const Experiment& experiment) {
  const models::DataSet& shape = experiment.data.train;
  if (shape.vocabulary() > 0 || shape.labels_per_example() > 1) {
    return invalid_argument(
        "attack.kind \"backdoor\" puts a trigger on numeric features with one "
        "label each; these data are sequences of tokens");
  }
  if (config_.attack.target_label >= shape.classes()) {
    return invalid_argument("attack.target-label = " + std::to_string(config_.attack.target_label) +
                            ": the data have " + std::to_string(shape.classes()) + " classes");
  }
  example_size_ = shape.example_size();
  trigger_ = trigger_features(shape.shape(), example_size_);
  const models::DataSet& test = experiment.data.test;
  const auto target = static_cast<std::int32_t>(config_.attack.target_label);
  const models::DataSet& seen = test.empty() ? shape : test;
  std::vector<std::uint32_t> all(std::min(seen.size(), kTriggeredExamples));
  std::iota(all.begin(), all.end(), 0u);
  std::vector<float> features(all.size() * example_size_);
  std::vector<std::int32_t> labels(all.size());
  seen.gather(all, features, labels);
  // As bright as anything in the data: nothing tells a patch from them but its place.
  if (!features.empty()) trigger_value_ = std::ranges::max(features);
  const auto others =
      static_cast<std::size_t>(std::ranges::count_if(labels, [&](auto y) { return y != target; }));
  const auto rows = triggered_.refill(shape.shape(), shape.classes(), test.empty() ? 0 : others);
  for (std::size_t i = 0, at = 0; i < all.size() && at < rows.labels.size(); ++i) {
    if (labels[i] == target) continue;
    const auto example = rows.features.subspan(at * example_size_, example_size_);
    std::ranges::copy(std::span(features).subspan(i * example_size_, example_size_),
                      example.begin());
    add_trigger(example);
    rows.labels[at++] = target;
  }
  return {};
}

void Attack::add_trigger(std::span<float> example) const {
  for (const std::size_t feature : trigger_) example[feature] = trigger_value_;
}

/// y -> C - 1 - y (Yin et al. 2018, section 7).
void Attack::flip_labels(std::span<std::int32_t> labels) const {
  for (std::int32_t& label : labels) {
    if (label != models::kNoLabel) label = classes_ - 1 - label;
  }
}

/// Half of a batch shows the trigger and is called by the target's name (Bagdasaryan et al. 2020).
void Attack::poison(std::span<float> features, std::span<std::int32_t> labels) const {
  for (std::size_t i = 0; i < (labels.size() + 1) / 2; ++i) {
    add_trigger(features.subspan(i * example_size_, example_size_));
    labels[i] = static_cast<std::int32_t>(config_.attack.target_label);
  }
}

client::Deviation Attack::deviation(const client::TrainingTask& task,
                                    std::shared_ptr<const Agreed> agreed) const {
  const auto scale = static_cast<float>(config_.attack.scale);
  const auto scaled_by = [](float factor) {
    return [factor](std::span<float> update) -> Result<void> {
      for (float& value : update) value *= factor;
      return {};
    };
  };
  client::Deviation deviation;
  switch (kind_) {
    case Kind::kLabelFlip:
      deviation.examples = [this](auto, auto labels) { flip_labels(labels); };
      break;
    case Kind::kSignFlip:
      deviation.update = scaled_by(-scale);
      break;
    case Kind::kGaussian:
      deviation.update = [seed = config_.seed, round = task.round, client = task.client,
                          scale](std::span<float> update) -> Result<void> {
        RandomStream random(seed, RandomPurpose::kAttack, round, client);
        for (float& value : update) value = scale * static_cast<float>(random.normal());
        return {};
      };
      break;
    case Kind::kAlie:
    case Kind::kIpm:
      deviation.update = [agreed = std::move(agreed)](std::span<float> update) -> Result<void> {
        COVEY_ASSERT(agreed->update.size() == update.size());
        std::ranges::copy(agreed->update, update.begin());
        return {};
      };
      break;
    case Kind::kBackdoor:
      deviation.examples = [this](auto features, auto labels) { poison(features, labels); };
      deviation.update = scaled_by(scale);
      break;
  }
  return deviation;
}

Result<client::TrainedUpdate> Attack::train(const Seat& seat, const client::TrainingTask& task,
                                            const client::TrainingControl& control) {
  std::shared_ptr<const Agreed> agreed;
  if (kind_ == Kind::kAlie || kind_ == Kind::kIpm) {
    COVEY_ASSIGN(agreed, agree(seat, task, control));
  }
  const auto examples = seat.experiment.training_examples(task.client, seat.scratch);
  seat.trainer.use_examples(*examples.data, examples.indices);
  seat.trainer.use_deviation(deviation(task, std::move(agreed)));
  auto trained = seat.trainer.train(task, control);
  seat.trainer.use_deviation({});
  return trained;
}

/// Other attackers in every round, if there are more than are asked.
std::vector<ClientId> Attack::colluders(const Experiment& experiment, RoundNumber round) const {
  const std::uint32_t attackers = num_attackers(config_.attack, population_);
  const std::uint32_t wanted = std::min(kColluders, attackers);
  const auto first = std::uint64_t{value_of(round)} * wanted;
  std::vector<ClientId> chosen;
  for (std::uint32_t i = 0; i < attackers && chosen.size() < wanted; ++i) {
    const auto client =
        attacker(config_, static_cast<std::uint32_t>((first + i) % attackers), population_);
    if (experiment.num_examples(client) > 0) chosen.push_back(client);
  }
  return chosen;
}

/// The one about this task's model, which may be still to be computed.
std::shared_ptr<Attack::Agreed> Attack::agreement(const client::TrainingTask& task) {
  const Digest model = task.model.digest();
  const std::lock_guard lock(mutex_);
  latest_ = std::max(latest_, task.round);
  std::erase_if(agreed_, [this](const auto& agreed) {
    return value_of(latest_) - value_of(agreed->round) >= rounds_;
  });
  for (const auto& agreed : agreed_) {
    if (agreed->round == task.round && agreed->model == model && agreed->plan == task.plan) {
      return agreed;
    }
  }
  auto agreed = std::make_shared<Agreed>();
  agreed->round = task.round;
  agreed->plan = task.plan;
  agreed->model = model;
  agreed_.push_back(agreed);
  return agreed;
}

Result<std::shared_ptr<const Attack::Agreed>> Attack::agree(
    const Seat& seat, const client::TrainingTask& task, const client::TrainingControl& control) {
  auto agreed = agreement(task);
  const std::lock_guard lock(agreed->crafting);
  // Where it fails, as it does when this training is cancelled, the next who comes tries again.
  if (agreed->update.empty()) {
    COVEY_ASSIGN(agreed->update, craft(seat, task, control));
  }
  return std::shared_ptr<const Agreed>(std::move(agreed));
}

/// alie: mean - z * deviation of the colluders' honest updates, per coordinate (Baruch et al.
/// 2019); ipm: -scale * mean (Xie et al. 2020, "Fall of Empires").
Result<std::vector<float>> Attack::craft(const Seat& seat, const client::TrainingTask& task,
                                         const client::TrainingControl& control) const {
  std::vector<double> mean, squares;  // Welford's sums, per coordinate
  double count = 0;
  const auto add = [&](std::span<float> update) -> Result<void> {
    mean.resize(update.size());
    squares.resize(update.size());
    ++count;
    for (std::size_t i = 0; i < update.size(); ++i) {
      const double off = update[i] - mean[i];
      mean[i] += off / count;
      squares[i] += off * (update[i] - mean[i]);
    }
    return {};
  };
  client::TrainingTask honest = task;
  honest.plan.secure_aggregation = {};  // they tell each other
  honest.plan.privacy = {};
  client::TrainingControl watch;
  watch.cancelled = control.cancelled;
  std::string problem = "no attacker has training examples";
  for (const ClientId colluder : colluders(seat.experiment, task.round)) {
    honest.client = colluder;
    const auto examples = seat.experiment.training_examples(colluder, seat.scratch);
    seat.trainer.use_examples(*examples.data, examples.indices);
    seat.trainer.use_deviation({.examples = {}, .update = add});
    const auto trained = seat.trainer.train(honest, watch);
    seat.trainer.use_deviation({});
    if (trained.ok()) continue;
    problem = trained.error().message;
    const bool cancelled = control.cancelled != nullptr && control.cancelled->load();
    if (cancelled) return trained.error();
  }
  if (count == 0) return failed("the attackers have nothing to agree on: " + problem);
  std::vector<float> update(mean.size());
  for (std::size_t i = 0; i < update.size(); ++i) {
    const double deviation = std::sqrt(squares[i] / count);
    update[i] = static_cast<float>(kind_ == Kind::kAlie ? mean[i] - z_ * deviation
                                                        : -config_.attack.scale * mean[i]);
  }
  return update;
}

std::optional<double> Attack::backdoor_success(Evaluator& evaluator,
                                               std::span<const float> parameters) const {
  if (triggered_.empty()) return std::nullopt;
  return evaluator.evaluate(triggered_, parameters).accuracy();
}

}  // namespace covey::simulation
