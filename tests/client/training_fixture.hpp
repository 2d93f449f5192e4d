#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/client/trainer.hpp>
#include <covey/models/network.hpp>
#include <vector>

/// A device with a small task, and what training it step by step gives.
namespace covey::client::testing {

inline constexpr std::uint32_t kFeatures = 6;
inline constexpr std::uint32_t kClasses = 3;
inline constexpr std::uint64_t kSeed = 20240607;

inline models::DataSet make_data(std::uint32_t n, float scale = 1) {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration);
  std::vector<float> features(n * kFeatures);
  std::vector<std::int32_t> labels(n);
  for (float& x : features) x = scale * static_cast<float>(random.normal());
  for (auto& y : labels) y = static_cast<std::int32_t>(random.below(kClasses));
  return *models::DataSet::from_floats({kFeatures}, std::move(features), std::move(labels),
                                       kClasses);
}

/// A device with every second of 50 examples, and a task of 3 epochs in batches of 4.
struct Fixture {
  models::DataSet data = make_data(50);
  strategies::Registry registry = strategies::Registry::with_built_ins();
  std::vector<std::uint32_t> indices;
  TrainingTask task;
  ParameterVector initial;

  Fixture() {
    for (std::uint32_t i = 0; i < 50; i += 2) indices.push_back(i);
    task.round = RoundNumber{4};
    task.client = ClientId{11};
    task.plan.strategy = "fedavg";
    task.plan.model = *preset_model("logistic", {kFeatures}, kClasses);
    task.plan.local_epochs = 3;
    task.plan.batch_size = 4;
    task.plan.learning_rate = 0.05f;
    task.plan.seed = kSeed;
    use_model(task.plan.model);
  }

  void use_model(const ModelSpec& spec) {
    task.plan.model = spec;
    const auto network = *models::Network::make(spec);
    initial = ParameterVector(network.num_parameters());
    network.initialise(initial.span(), RandomStream(kSeed, RandomPurpose::kModelInitialisation));
    task.model = encode_fp32(initial.span());
  }

  Result<TrainedUpdate> train(TrainingControl control = {}) const {
    SgdTrainer trainer(data, registry);
    trainer.use_examples(indices);
    return trainer.train(task, control);
  }
};

inline std::vector<float> decode(const TrainedUpdate& trained) {
  std::vector<float> values(trained.update.size() / sizeof(float));
  REQUIRE(decode_fp32(trained.update.span(), values));
  return values;
}

struct Reference {
  std::vector<float> update;
  double mean_loss = 0;
  std::uint32_t steps = 0;
};

/// McMahan et al. 2017, Algorithm 1, ClientUpdate, step by step over Network::train_step.
inline Reference reference(const Fixture& f, std::uint32_t epochs, float mu) {
  const auto network = *models::Network::make(f.task.plan.model);
  const std::size_t batch = f.task.plan.batch_size == 0 ? f.indices.size() : f.task.plan.batch_size;
  models::Workspace workspace(network, batch);
  ParameterVector w = f.initial.clone();
  std::vector<std::uint32_t> order = f.indices;
  RandomStream random(f.task.plan.seed, RandomPurpose::kTraining, f.task.round, f.task.client);
  Reference result;
  for (std::uint32_t e = 0; e < epochs; ++e) {
    random.shuffle(std::span(order));
    for (std::size_t begin = 0; begin < order.size(); begin += batch) {
      const std::size_t size = std::min(batch, order.size() - begin);
      std::vector<float> x(size * kFeatures);
      std::vector<std::int32_t> y(size);
      f.data.gather(std::span(order).subspan(begin, size), x, y);
      result.mean_loss += network.train_step(workspace, x, y, w.span(),
                                             {f.task.plan.learning_rate, mu, f.initial.span()});
      ++result.steps;
    }
  }
  result.mean_loss /= result.steps;
  for (std::size_t i = 0; i < w.size(); ++i) result.update.push_back(w[i] - f.initial[i]);
  return result;
}

inline void check_equal(const TrainedUpdate& trained, const Reference& expected) {
  CHECK(decode(trained) == expected.update);
  CHECK(trained.steps == expected.steps);
  CHECK(trained.train_loss == Approx(expected.mean_loss).epsilon(1e-12));
  CHECK(trained.digest == sha256(trained.update.span()));
}

}  // namespace covey::client::testing
