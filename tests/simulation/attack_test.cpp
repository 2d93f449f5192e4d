#include "simulation/attack.hpp"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/encoding.hpp>
#include <covey/simulation/simulate.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace covey;
using simulation::Attack;
using simulation::Experiment;

namespace {

constexpr std::uint64_t kSeed = 31;

RunConfig config_with(const std::vector<std::string>& overrides) {
  const std::string text = R"(
[run]
seed = 31
num-rounds = 12
[data]
source = "synthetic"
iid = true
size-spread = 0.3
[partition]
scheme = "natural"
clients = 20
[client]
learning-rate = 0.05
[selection]
fraction-fit = 1.0
)";
  const auto config = parse_run_text(text, "run.toml", overrides);
  INFO((config.ok() ? "" : config.error().message));
  REQUIRE(config.ok());
  return *config;
}

Experiment load(const std::vector<std::string>& overrides) {
  auto experiment = simulation::load_experiment(config_with(overrides), "");
  INFO((experiment.ok() ? "" : experiment.error().message));
  REQUIRE(experiment.ok());
  return std::move(*experiment);
}

std::string refusal(const std::vector<std::string>& overrides) {
  const auto experiment = simulation::load_experiment(config_with(overrides), "");
  return experiment.ok() ? "(no error)" : experiment.error().message;
}

simulation::SimulationResult run(const std::vector<std::string>& overrides, unsigned threads = 1) {
  const Experiment experiment = load(overrides);
  const auto registry = simulation::load_registry(experiment.config);
  REQUIRE(registry.ok());
  simulation::SimulationOptions options;
  options.threads = threads;
  options.check_sums = true;
  auto result = simulation::simulate(experiment, *registry, options);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

double accuracy(const std::vector<std::string>& overrides) {
  return run(overrides).rounds.back().accuracy.value();
}

/// Trains single devices, attackers and others, outside of a simulation.
struct Worker {
  explicit Worker(const Experiment& of)
      : experiment(of),
        registry(simulation::load_registry(of.config).value()),
        trainer(of.data.train, registry, of.make_engine) {}

  client::TrainingTask task_of(ClientId client) const {
    client::TrainingTask task;
    task.round = RoundNumber{3};
    task.client = client;
    task.plan = experiment.plan;
    task.model = encode_fp32(experiment.initial_model().span());
    return task;
  }
  std::vector<float> values(const Result<client::TrainedUpdate>& trained) const {
    if (!trained.ok()) FAIL(trained.error().message);
    std::vector<float> update(experiment.layout.size());
    REQUIRE(decode_fp32(trained->update.span(), update).ok());
    return update;
  }
  std::vector<float> honest(ClientId client) {
    const auto examples = experiment.training_examples(client, scratch);
    trainer.use_examples(*examples.data, examples.indices);
    return values(trainer.train(task_of(client), {}));
  }
  std::vector<float> attack(ClientId client) {
    return values(experiment.attack->train({experiment, trainer, scratch}, task_of(client), {}));
  }
  ClientId attacker(std::uint32_t i) const {
    return simulation::attacker(experiment.config, i, experiment.population());
  }

  const Experiment& experiment;
  strategies::Registry registry;
  Experiment::Scratch scratch;
  client::SgdTrainer trainer;
};

}  // namespace

TEST_CASE("exactly the share of devices is Byzantine, another set for another seed") {
  for (const std::uint32_t population : {1u, 2u, 10u, 100u, 1000u, 4097u}) {
    RunConfig config;
    config.attack.kind = "sign-flip";
    config.attack.share = 0.1;
    const auto expected = std::max(1u, static_cast<std::uint32_t>(std::lround(0.1 * population)));
    std::set<std::uint64_t> sets[2];
    for (const std::uint64_t seed : {kSeed, kSeed + 1}) {
      config.seed = seed;
      auto& attackers = sets[seed - kSeed];
      for (std::uint32_t k = 0; k < population; ++k) {
        if (simulation::is_attacker(config, ClientId{k}, population)) attackers.insert(k);
      }
      CAPTURE(population, seed);
      CHECK(attackers.size() == expected);
      std::set<std::uint64_t> enumerated;
      for (std::uint32_t i = 0; i < expected; ++i) {
        enumerated.insert(value_of(simulation::attacker(config, i, population)));
      }
      CHECK(enumerated == attackers);
    }
    if (population >= 100) CHECK(sets[0] != sets[1]);
  }
}

TEST_CASE("attackers are spread evenly over a million devices") {
  RunConfig config;
  config.seed = kSeed;
  config.attack.kind = "gaussian";
  config.attack.share = 0.2;
  constexpr std::uint32_t kDevices = 1'000'000;
  std::uint32_t found = 0;
  for (std::uint32_t k = 0; k < 20'000; ++k) {
    found += simulation::is_attacker(config, ClientId{k * 50u}, kDevices) ? 1 : 0;
  }
  CHECK(found > 4000 - 6 * 57);  // 20,000 draws of 0.2: standard deviation 57
  CHECK(found < 4000 + 6 * 57);
}

TEST_CASE("no device attacks where no attack is configured") {
  RunConfig config;
  CHECK_FALSE(simulation::is_attacker(config, ClientId{0}, 10));
  CHECK(load({}).attack == nullptr);
  CHECK(load({"attack.kind=sign-flip", "attack.share=0"}).attack == nullptr);
}

TEST_CASE("ALIE's z is the paper's") {
  CHECK(simulation::alie_z(50, 12) == Approx(0.3360).margin(5e-5));
  CHECK(simulation::alie_z(25, 5) == Approx(0.2533).margin(5e-5));
  CHECK(simulation::alie_z(40, 2) == 0);  // half of the honest ones are needed: the mean itself
  CHECK(simulation::alie_z(10, 9) > 3);   // a majority of attackers needs nobody
  CHECK(simulation::alie_z(10, 10) == 0);
}

TEST_CASE("a sign-flipping device sends its honest update times minus the scale") {
  const Experiment experiment = load({"attack.kind=sign-flip", "attack.scale=3"});
  Worker worker(experiment);
  const ClientId client = worker.attacker(0);
  const auto honest = worker.honest(client);
  const auto attacked = worker.attack(client);
  for (std::size_t i = 0; i < honest.size(); ++i) REQUIRE(attacked[i] == -3 * honest[i]);
  CHECK(worker.honest(client) == honest);  // the trainer is honest again
}

TEST_CASE("a Gaussian device sends noise of the scale's deviation, other noise each time") {
  const Experiment experiment =
      load({"attack.kind=gaussian", "attack.scale=2", "attack.share=0.5"});
  Worker worker(experiment);
  const auto noise = worker.attack(worker.attacker(0));
  double sum = 0, squares = 0;
  for (const float value : noise) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const auto n = static_cast<double>(noise.size());  // 610
  CHECK(std::abs(sum / n) < 6 * 2 / std::sqrt(n));
  CHECK(std::sqrt(squares / n) == Approx(2).margin(6 * 2 / std::sqrt(2 * n)));
  CHECK(worker.attack(worker.attacker(1)) != noise);
  CHECK(worker.attack(worker.attacker(0)) == noise);
}

TEST_CASE("a label-flipping device trains on the labels turned round") {
  // One step on all examples from a model of zeros, where every class has probability 1/C: the
  // gradient of class c's bias is 1/C - n_c/n, so flipped labels turn the biases' update round.
  const Experiment experiment =
      load({"attack.kind=label-flip", "client.batch-size=0", "attack.share=0.5"});
  Worker worker(experiment);
  const ClientId client = worker.attacker(0);
  client::TrainingTask task = worker.task_of(client);
  task.model = encode_fp32(std::vector<float>(experiment.layout.size()));
  const auto examples = experiment.training_examples(client, worker.scratch);
  worker.trainer.use_examples(*examples.data, examples.indices);
  const auto honest = worker.values(worker.trainer.train(task, {}));
  const auto flipped = worker.values(
      experiment.attack->train({experiment, worker.trainer, worker.scratch}, task, {}));
  REQUIRE(honest.size() == 610);
  bool same = true;
  for (std::size_t c = 0; c < 10; ++c) {
    CHECK(flipped[600 + c] == Approx(honest[609 - c]).margin(1e-6));
    same = same && flipped[600 + c] == honest[600 + c];
  }
  CHECK_FALSE(same);
}

TEST_CASE("colluders send minus the scale times the mean of their honest updates") {
  const Experiment experiment =
      load({"attack.kind=ipm", "attack.scale=0.5", "attack.share=0.2"});  // four of twenty
  Worker worker(experiment);
  std::vector<double> mean(experiment.layout.size());
  for (std::uint32_t i = 0; i < 4; ++i) {
    const auto honest = worker.honest(worker.attacker(i));
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += honest[j] / 4.0;
  }
  const auto sent = worker.attack(worker.attacker(2));
  for (std::size_t j = 0; j < mean.size(); ++j) {
    REQUIRE(sent[j] == Approx(-0.5 * mean[j]).margin(1e-7));
  }
  CHECK(worker.attack(worker.attacker(0)) == sent);
}

TEST_CASE("ALIE's update lies z deviations of the colluders' updates off their mean") {
  const Experiment experiment = load({"attack.kind=alie", "attack.share=0.3"});  // n = 20, f = 6
  Worker worker(experiment);
  const double z = simulation::alie_z(20, 6);
  REQUIRE(z > 0);
  std::vector<std::vector<float>> honest;
  for (std::uint32_t i = 0; i < 6; ++i) honest.push_back(worker.honest(worker.attacker(i)));
  const auto sent = worker.attack(worker.attacker(1));
  for (std::size_t j = 0; j < sent.size(); ++j) {
    double mean = 0, square = 0;
    for (const auto& update : honest) mean += update[j] / 6.0;
    for (const auto& update : honest) square += (update[j] - mean) * (update[j] - mean) / 6.0;
    REQUIRE(sent[j] == Approx(mean - z * std::sqrt(square)).margin(1e-6));
  }
}

TEST_CASE("many workers at once agree on the update that one would craft") {
  const Experiment experiment = load({"attack.kind=alie", "attack.share=0.4"});
  const auto expected = Worker(experiment).attack(simulation::attacker(experiment.config, 0, 20));
  const Experiment again = load({"attack.kind=alie", "attack.share=0.4"});
  std::vector<std::vector<float>> sent(8);
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t i = 0; i < sent.size(); ++i) {
      threads.emplace_back([&, i] {
        Worker worker(again);
        const auto trained = again.attack->train({again, worker.trainer, worker.scratch},
                                                 worker.task_of(worker.attacker(i)), {});
        if (!trained.ok()) return;
        sent[i].resize(again.layout.size());
        (void)decode_fp32(trained->update.span(), sent[i]);
      });
    }
  }
  for (const auto& update : sent) CHECK(update == expected);
}

TEST_CASE("an agreement is kept as long as an update of its round may count") {
  const std::vector<std::string> attack = {"attack.kind=alie", "attack.share=0.4"};
  auto asynchronous = attack;
  asynchronous.insert(asynchronous.end(), {"strategy.name=fedbuff", "asynchronous.buffer=4",
                                           "asynchronous.max-staleness=6"});
  const Experiment experiment = load(asynchronous);
  Worker worker(experiment);
  // What would be crafted anew with these devices' data is another update.
  auto elsewhere = asynchronous;
  elsewhere.push_back("run.seed=32");
  const Experiment other = load(elsewhere);
  Worker stranger(other);
  const auto send = [&](Worker& by, std::uint32_t round) {
    client::TrainingTask task = worker.task_of(worker.attacker(0));
    task.round = RoundNumber{round};
    return worker.values(
        experiment.attack->train({by.experiment, by.trainer, by.scratch}, task, {}));
  };
  std::vector<std::vector<float>> sent;
  for (std::uint32_t round = 1; round <= 7; ++round) sent.push_back(send(worker, round));
  for (std::uint32_t round = 1; round <= 7; ++round) {
    CHECK(send(stranger, round) == sent[round - 1]);
  }
  send(worker, 8);  // now round 1 is older than an update may be
  CHECK(send(stranger, 2) == sent[1]);
  CHECK(send(stranger, 1) != sent[0]);
}

TEST_CASE("a cancelled agreement is made by the next who needs it") {
  const Experiment experiment = load({"attack.kind=ipm", "attack.share=0.4"});
  Worker worker(experiment);
  std::atomic<bool> cancelled{true};
  client::TrainingControl control;
  control.cancelled = &cancelled;
  CHECK_FALSE(experiment.attack
                  ->train({experiment, worker.trainer, worker.scratch},
                          worker.task_of(worker.attacker(0)), control)
                  .ok());
  CHECK(worker.attack(worker.attacker(0)) == worker.attack(worker.attacker(1)));
}

TEST_CASE("a run under attack has the same bits on any number of threads") {
  for (const std::string kind : {"alie", "ipm", "gaussian", "backdoor"}) {
    CAPTURE(kind);
    const std::vector<std::string> overrides = {"attack.kind=" + kind, "attack.share=0.25",
                                                "run.num-rounds=4"};
    const auto one = run(overrides, 1).model.digest();
    CHECK(run(overrides, 4).model.digest() == one);
  }
}

TEST_CASE("a median withstands attackers that ruin a mean") {
  const double clean = accuracy({});
  const std::vector<std::string> attack = {"attack.kind=sign-flip", "attack.share=0.2",
                                           "attack.scale=6"};
  auto with_median = attack;
  with_median.push_back("strategy.name=fedmedian");
  const double mean = accuracy(attack);
  const double median = accuracy(with_median);
  CAPTURE(clean, mean, median, kSeed);
  CHECK(mean < clean - 0.2);
  CHECK(median > clean - 0.1);
}

TEST_CASE("attackers under secure aggregation mask what they changed") {
  const std::vector<std::string> secure = {"secure-aggregation.mode=honest-but-curious",
                                           "secure-aggregation.max-weight=500",
                                           "secure-aggregation.bits=24", "run.num-rounds=3"};
  for (const std::string kind : {"sign-flip", "ipm", "label-flip"}) {
    CAPTURE(kind);
    auto attacked = secure;
    attacked.insert(attacked.end(), {"attack.kind=" + kind, "attack.share=0.3"});
    const auto plain = run({"attack.kind=" + kind, "attack.share=0.3", "run.num-rounds=3"});
    const auto masked = run(attacked);
    const auto honest = run(secure);
    std::vector<float> a(610), b(610), c(610);
    REQUIRE(decode_fp32(plain.model.span(), a).ok());
    REQUIRE(decode_fp32(masked.model.span(), b).ok());
    REQUIRE(decode_fp32(honest.model.span(), c).ok());
    double error = 0, effect = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      error += std::pow(a[i] - b[i], 2);
      effect += std::pow(a[i] - c[i], 2);
    }
    CHECK(error < 1e-4 * effect);  // fixed point of 24 bits, against what the attack does
  }
}

TEST_CASE("a boosted backdoor is in the model, and leaves other examples alone") {
  const auto success = [](const std::vector<std::string>& overrides) {
    const Experiment experiment = load(overrides);
    const auto result = run(overrides);
    auto evaluator = simulation::Evaluator::make(experiment.plan, experiment.make_engine, 1);
    REQUIRE(evaluator.ok());
    std::vector<float> model(experiment.layout.size());
    REQUIRE(decode_fp32(result.model.span(), model).ok());
    return std::pair(experiment.attack->backdoor_success(*evaluator, model).value(),
                     result.rounds.back().accuracy.value());
  };
  const std::vector<std::string> backdoor = {"attack.kind=backdoor", "attack.target-label=3",
                                             "attack.share=0.2", "run.num-rounds=30"};
  auto boosted = backdoor;
  boosted.push_back("attack.scale=5");
  auto harmless = backdoor;
  harmless.push_back("attack.scale=0");
  const auto [clean_success, clean_accuracy] = success(harmless);
  const auto [attack_success, attack_accuracy] = success(boosted);
  CAPTURE(clean_success, clean_accuracy, attack_success, attack_accuracy);
  CHECK(clean_success < 0.5);
  CHECK(attack_success > 0.8);
  CHECK(attack_accuracy > clean_accuracy - 0.25);
}

TEST_CASE("attacks that do not go with the run are refused by their key") {
  CHECK_THAT(refusal({"attack.kind=backdoor", "attack.target-label=10"}),
             Catch::Contains("attack.target-label = 10: the data have 10 classes"));
  const auto refused = [](const std::vector<std::string>& overrides) {
    const auto config = parse_run_text("", "run.toml", overrides);
    return config.ok() ? "(no error)" : config.error().message;
  };
  CHECK_THAT(refused({"attack.share=0.2"}), Catch::Contains("attack.kind"));
  CHECK_THAT(refused({"attack.kind=alie", "attack.scale=2"}), Catch::Contains("attack.scale"));
  CHECK_THAT(refused({"attack.kind=ipm", "attack.target-label=2"}),
             Catch::Contains("attack.target-label"));
}
