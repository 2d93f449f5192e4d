#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "rank_harness.hpp"

using namespace covey;
using namespace covey::simulation;
using covey::testing::RankNetwork;
using covey::testing::RankPort;
using covey::testing::RankRun;
using covey::testing::TrainingThread;

namespace {

const std::string kRunFile = R"(
[run]
name = "ranks"
seed = 5
num-rounds = 6
eval-every = 6
[data]
source = "synthetic"
[partition]
scheme = "natural"
clients = 20
[client]
learning-rate = 0.05
[selection]
fraction-fit = 0.5
)";

RankRun load(const std::vector<std::string>& overrides = {}) {
  const auto config = parse_run_text(kRunFile, "ranks.toml", overrides);
  INFO((config.ok() ? "" : config.error().message));
  REQUIRE(config.ok());
  auto registry = load_registry(*config);
  REQUIRE(registry.ok());
  auto experiment = load_experiment(*config, "");
  REQUIRE(experiment.ok());
  return {*config, std::move(*registry), std::move(*experiment)};
}

SimulationResult simulated(const RankRun& run, LeadingRank* ranks,
                           std::function<void(const RoundMetrics&)> on_round = {}) {
  SimulationOptions options;
  options.on_round = std::move(on_round);
  if (ranks != nullptr) options.more_workers = [ranks] { return ranks->workers(); };
  auto result = simulate(run.experiment, run.registry, options);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return std::move(*result);
}

/// What rank 0 was told of ranks that went away. From any thread.
class Losses {
 public:
  LeadingRank::Options options() {
    LeadingRank::Options options;
    options.on_lost = [this](const std::string& what) {
      const std::lock_guard lock(mutex_);
      told_.push_back(what);
    };
    options.ping_interval = std::chrono::milliseconds(10);
    options.unanswered_pings = 20;
    return options;
  }
  std::vector<std::string> told() {
    const std::lock_guard lock(mutex_);
    return told_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> told_;
};

Result<void> gathered(LeadingRank& ranks, const RankRun& run) {
  return ranks.gather(fingerprint(run.experiment), models::kernel_instruction_set());
}

/// Passes a job to a worker behind a rank, which `reached` tells of.
class SlowWorker : public TrainingWorker {
 public:
  explicit SlowWorker(std::atomic<int>& running) : running_(running) {}
  Outcome compute(const TrainingJob&, const std::atomic<bool>& cancelled) override {
    ++running_;
    while (!cancelled) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    --running_;
    return std::nullopt;
  }

 private:
  std::atomic<int>& running_;
};

}  // namespace

TEST_CASE(
    "ranks train to the bits of one process, for sums, single updates, masks and asynchrony") {
  const auto overrides = GENERATE(
      std::vector<std::string>{"strategy.name=fedavg"},
      std::vector<std::string>{"strategy.name=qfedavg", "client.compressor=int8"},
      std::vector<std::string>{"client.compressor=top-k:0.1"},
      std::vector<std::string>{"secure-aggregation.mode=honest-but-curious",
                               "secure-aggregation.clip=4", "secure-aggregation.max-weight=200"},
      std::vector<std::string>{"strategy.name=fedbuff", "asynchronous.buffer=4",
                               "fleet.gflops=[0.001, 0.01]"},
      std::vector<std::string>{"client.accept-partial-work=true", "fleet.stragglers=0.5",
                               "client.local-epochs=4"});
  CAPTURE(overrides);
  const RankRun run = load(overrides);
  const auto alone = simulated(run, nullptr);
  for (const std::uint32_t size : {2U, 4U}) {
    CAPTURE(size);
    RankNetwork network(size);
    RankPort port(network, 0);
    Losses losses;
    std::vector<std::unique_ptr<TrainingThread>> others;
    for (std::uint32_t rank = 1; rank < size; ++rank) {
      others.push_back(
          std::make_unique<TrainingThread>(network, rank, run.hello(), run.workers(rank)));
    }
    LeadingRank ranks(port, losses.options());
    REQUIRE(gathered(ranks, run).ok());
    // On a busy machine this thread may have done it all before the others looked.
    for (int attempt = 0; attempt < 50 && network.messages(1, 0) <= 1; ++attempt) {
      const auto together = simulated(run, &ranks);
      REQUIRE(together.model.digest() == alone.model.digest());
      REQUIRE(together.train_steps == alone.train_steps);
    }
    CHECK(network.messages(1, 0) > 1);  // it said more than that it is ready
    ranks.end();
    CHECK(port.ended_orderly == true);
    CHECK(losses.told().empty());
  }
}

TEST_CASE("a model travels once to each rank and round, however many workers the rank has") {
  const RankRun run = load({"run.num-rounds=4", "selection.fraction-fit=1.0"});
  RankNetwork network(2);
  RankPort port(network, 0);
  Losses losses;
  TrainingThread other(network, 1, run.hello(), run.workers(3));
  LeadingRank ranks(port, losses.options());
  REQUIRE(gathered(ranks, run).ok());
  auto workers = ranks.workers();
  REQUIRE(workers.size() == 4);  // one more, so that a job lies ready
  const std::vector<std::byte> zeros(4 * run.experiment.layout.size());
  const std::atomic<bool> never{false};
  for (std::uint64_t round = 1; round <= 5; ++round) {
    std::vector<std::byte> bytes = zeros;
    bytes[0] = static_cast<std::byte>(round);
    const SharedBytes model(std::move(bytes));
    const std::uint64_t before = network.bytes(0, 1);
    for (std::size_t i = 0; i < 8; ++i) {
      TrainingJob job;
      job.task.client = static_cast<ClientId>(i);
      job.task.round = static_cast<RoundNumber>(round);
      job.task.plan = run.experiment.plan;
      job.task.model = model;
      const auto outcome = workers[i % 4]->compute(job, never);
      REQUIRE(outcome);
      REQUIRE(outcome->ok());
    }
    const std::uint64_t sent = network.bytes(0, 1) - before;
    CHECK(sent > model.size());
    CHECK(sent < 2 * model.size() + 8 * 1000);  // and eight plans, far below a kilobyte each
  }
}

TEST_CASE("a run in which a rank falls silent, or cannot be reached, ends with the same bits") {
  const bool refused = GENERATE(false, true);
  CAPTURE(refused);
  const RankRun run = load({"run.num-rounds=12"});
  const auto alone = simulated(run, nullptr);
  RankNetwork network(3);
  RankPort port(network, 0);
  Losses losses;
  TrainingThread one(network, 1, run.hello(), run.workers(1));
  TrainingThread two(network, 2, run.hello(), run.workers(1));
  LeadingRank ranks(port, losses.options());
  REQUIRE(gathered(ranks, run).ok());
  const auto together = simulated(run, &ranks, [&](const RoundMetrics& metrics) {
    if (value_of(metrics.round) != 3) return;
    if (refused) network.refuse(1);
    network.cut(1);
  });
  CHECK(together.model.digest() == alone.model.digest());
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (losses.told().empty() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  REQUIRE(losses.told().size() == 1);
  CHECK(losses.told()[0].starts_with("rank 1 ("));
  CHECK_THAT(losses.told()[0],
             Catch::Contains(refused ? "the network says no" : "it did not answer"));
  ranks.end();
  CHECK(port.ended_orderly == false);  // there is nobody to wait for
}

TEST_CASE("a rank that would not give the same bits is refused by name") {
  const RankRun run = load();
  RankHello hello = run.hello();
  std::string expected;
  SECTION("other data") {
    hello = load({"run.seed=6"}).hello();
    expected = "loaded another experiment than rank 0";
  }
  SECTION("other options, with the same data") {
    hello = load({"client.learning-rate=0.06"}).hello();
    expected = "loaded another experiment than rank 0";
  }
  SECTION("another processor") {
    hello.kernels = "abacus";
    expected = "computes with abacus kernels";
  }
  SECTION("a problem of its own") {
    hello.problem = "there is no file train.csv";
    expected = "there is no file train.csv";
  }
  RankNetwork network(2);
  RankPort port(network, 0);
  Losses losses;
  TrainingThread other(network, 1, hello, run.workers(1));
  LeadingRank ranks(port, losses.options());
  const auto ready = gathered(ranks, run);
  REQUIRE_FALSE(ready.ok());
  CHECK(ready.error().message.starts_with("rank 1 ("));
  CHECK_THAT(ready.error().message, Catch::Contains(expected));
}

TEST_CASE("a job that is cancelled stops on its rank, also when it is told before the job came") {
  const RankRun run = load();
  RankNetwork network(2);
  RankPort port(network, 0);
  Losses losses;
  std::atomic<int> running{0};
  std::vector<std::unique_ptr<TrainingWorker>> slow;
  slow.push_back(std::make_unique<SlowWorker>(running));
  TrainingThread other(network, 1, run.hello(), std::move(slow));
  LeadingRank ranks(port, losses.options());
  REQUIRE(gathered(ranks, run).ok());
  auto workers = ranks.workers();
  for (const bool at_once : {true, false}) {
    std::atomic<bool> cancelled{at_once};
    std::thread canceller([&] {
      while (running == 0 && !at_once) std::this_thread::yield();
      cancelled = true;
    });
    TrainingJob job;
    job.task.plan = run.experiment.plan;
    job.task.model = SharedBytes(std::vector<std::byte>(64));
    CHECK_FALSE(workers[0]->compute(job, cancelled));
    canceller.join();
    CHECK(running == 0);
  }
  CHECK(losses.told().empty());
}

TEST_CASE("a stopped run waits for no rank, and tells which do not answer") {
  const RankRun run = load();
  RankNetwork network(3);
  RankPort port(network, 0);
  std::atomic<bool> stop{false};
  std::atomic<int> running{0};
  Losses losses;
  std::vector<std::unique_ptr<TrainingWorker>> slow;
  slow.push_back(std::make_unique<SlowWorker>(running));
  TrainingThread one(network, 1, run.hello(), std::move(slow));
  TrainingThread two(network, 2, run.hello(), run.workers(1));
  auto options = losses.options();
  options.stop = &stop;
  LeadingRank ranks(port, options);
  REQUIRE(gathered(ranks, run).ok());
  auto workers = ranks.workers();
  std::thread stopper([&] {
    while (running == 0) std::this_thread::yield();
    network.cut(1);
    stop = true;
  });
  TrainingJob job;
  job.task.plan = run.experiment.plan;
  job.task.model = SharedBytes(std::vector<std::byte>(64));
  CHECK_FALSE(workers[0]->compute(job, std::atomic<bool>{false}));
  stopper.join();
  ranks.end();  // waits for what is told
  REQUIRE(losses.told().size() == 1);
  CHECK(losses.told()[0].starts_with("rank 1 ("));
  CHECK_FALSE(*port.ended_orderly);
}

TEST_CASE("jobs and outcomes cross as they are, and no part of one is taken for the whole") {
  const RankRun run = load({"strategy.name=fedprox", "strategy.proximal-mu=0.3"});
  TrainingJob job;
  job.max_epochs = 3;
  job.task.run = static_cast<RunId>(77);
  job.task.round = static_cast<RoundNumber>(9);
  job.task.client = static_cast<ClientId>(123456789);
  job.task.plan = run.experiment.plan;
  job.task.model = SharedBytes(std::vector<std::byte>(100, std::byte{7}));
  job.task.report_within = std::chrono::seconds(5);
  const auto job_bytes = encode_job(4, job, {8, true, {1, 300}});
  const auto read = decode_job(job_bytes);
  REQUIRE(read.ok());
  CHECK(read->number == 4);
  CHECK(read->model.serial == 8);
  CHECK(read->model.dropped == std::vector<std::uint64_t>{1, 300});
  CHECK(read->job.max_epochs == 3);
  CHECK(read->job.task.client == job.task.client);
  CHECK(read->job.task.plan == job.task.plan);
  CHECK(read->job.task.report_within == job.task.report_within);
  CHECK(read->job.task.model.digest() == job.task.model.digest());
  CHECK(read->job.task.residual.empty());
  job.task.residual = SharedBytes(std::vector<std::byte>(44, std::byte{9}));
  for (const bool included : {true, false}) {
    const auto with = decode_job(encode_job(5, job, {8, included, {}}));
    REQUIRE(with.ok());
    CHECK(with->job.task.model.size() == (included ? 100 : 0));
    CHECK(with->job.task.residual.digest() == job.task.residual.digest());
  }

  client::TrainedUpdate update;
  update.update = SharedBytes(std::vector<std::byte>(50, std::byte{3}));
  update.digest = update.update.digest();
  update.weight = 0.1;
  update.scalars = {1.5, -2.25};
  update.num_examples = 40;
  update.steps = 12;
  update.train_loss = 1.0 / 3;
  update.packed = privacy::PackedFormat{20, 1000};
  update.clipped_coordinates = 6;
  const auto bytes = encode_outcome(4, Result<client::TrainedUpdate>(update));
  const auto back = decode_outcome(bytes);
  REQUIRE(back.ok());
  REQUIRE(back->outcome);
  const client::TrainedUpdate& same = **back->outcome;
  CHECK(same.update.digest() == update.digest);
  CHECK(same.digest == update.digest);
  CHECK(same.weight == update.weight);
  CHECK(same.scalars == update.scalars);
  CHECK(same.num_examples == 40);
  CHECK(same.steps == 12);
  CHECK(same.train_loss == update.train_loss);
  CHECK(same.packed == update.packed);
  CHECK(same.clipped_coordinates == 6);
  CHECK_FALSE(same.residual);
  update.residual = SharedBytes(std::vector<std::byte>(44, std::byte{9}));
  const auto with = decode_outcome(encode_outcome(4, Result<client::TrainedUpdate>(update)));
  REQUIRE(with.ok());
  CHECK((**with->outcome).update.digest() == update.digest);
  REQUIRE((**with->outcome).residual);
  CHECK((**with->outcome).residual->digest() == update.residual->digest());
  const auto refused = decode_outcome(
      encode_outcome(5, Result<client::TrainedUpdate>(failed("the loss became NaN"))));
  REQUIRE(refused.ok());
  CHECK(refused->outcome->error().message == "the loss became NaN");
  CHECK_FALSE(decode_outcome(encode_outcome(6, std::nullopt))->outcome);

  for (std::size_t length = 0; length < job_bytes.size(); ++length) {
    CHECK_FALSE(decode_job({job_bytes.begin(), job_bytes.begin() + std::ptrdiff_t(length)}).ok());
  }
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    CHECK_FALSE(decode_outcome({bytes.begin(), bytes.begin() + std::ptrdiff_t(length)}).ok());
  }
}
