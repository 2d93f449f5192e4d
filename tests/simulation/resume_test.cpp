#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <covey/simulation/simulate.hpp>
#include <string>
#include <vector>

#include "resumable_run.hpp"
#include "simulation/journal.hpp"

using namespace covey;
using covey::testing::read_bytes;
using covey::testing::ScratchFolder;
using covey::testing::write_bytes;

namespace {

/// Twenty unlike devices of Synthetic(1,1), six of eight selected count: some are late in every
/// round.
const std::string kRunFile = R"(
[run]
name = "resume"
seed = 4
num-rounds = 9
eval-every = 2
fairness-every = 3
[data]
source = "synthetic"
size-spread = 0.5
[partition]
scheme = "natural"
clients = 20
[client]
learning-rate = 0.05
)";

using Overrides = std::vector<std::string>;

Overrides operator+(Overrides all, const Overrides& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

const Overrides kUnlike = {"fleet.gflops=[0.0001, 0.002]", "fleet.latency-ms=[5, 400]"};
const Overrides kRounds =
    kUnlike + Overrides{"selection.fraction-fit=0.3", "selection.over-selection=1.34",
                        "selection.quorum=0.5", "selection.round-deadline-s=20",
                        "fleet.dropout=0.1"};
const Overrides kAsynchronous =
    kUnlike +
    Overrides{"strategy.name=fedbuff", "asynchronous.buffer=3", "asynchronous.concurrency=8"};

struct Outcome {
  std::string model;
  std::vector<std::string> rounds;  ///< their lines of metrics.jsonl, without wall time
  std::uint64_t train_steps = 0, bytes_up = 0, bytes_down = 0;
  double virtual_s = 0;
  bool finished = false;
  bool operator==(const Outcome&) const = default;
};

struct Run {
  Overrides overrides;
  std::string folder;  ///< "": not written down
  bool resume = false;
  std::uint32_t stop_after = 0;  ///< so many published rounds; 0: never
  std::chrono::milliseconds snapshot_pause{0};
  unsigned threads = 2;

  Result<simulation::SimulationResult> result() const {
    COVEY_ASSIGN(const auto config, parse_run_text(kRunFile, "resume.toml", overrides));
    COVEY_ASSIGN(const auto registry, simulation::load_registry(config));
    COVEY_ASSIGN(const auto experiment, simulation::load_experiment(config, ""));
    std::atomic<bool> stop{false};
    std::uint32_t rounds = 0;
    simulation::SimulationOptions options;
    options.threads = threads;
    options.stop = &stop;
    options.journal_folder = folder;
    options.resume = resume;
    options.snapshot_pause = snapshot_pause;
    options.on_round = [&](const RoundMetrics&) { stop = ++rounds == stop_after; };
    return simulation::simulate(experiment, registry, options);
  }

  Outcome outcome() const {
    auto run = result();
    INFO((run.ok() ? "" : run.error().message));
    REQUIRE(run.ok());
    Outcome outcome{run->model.digest().hex(),
                    {},
                    run->train_steps,
                    run->bytes_up,
                    run->bytes_down,
                    run->virtual_s,
                    run->finished};
    for (RoundMetrics& metrics : run->rounds) {
      CHECK(metrics.wall_s);
      metrics.wall_s.reset();
      outcome.rounds.push_back(to_json_line(metrics));
    }
    return outcome;
  }
};

/// Stopped behind each of some rounds and gone on: nothing of what comes out may differ.
void check_resumes(const Overrides& overrides, const std::vector<std::uint32_t>& stops) {
  CAPTURE(overrides);
  const Outcome whole = Run{overrides, ""}.outcome();
  REQUIRE(whole.finished);
  ScratchFolder folder("resume");
  for (const std::uint32_t stop : stops) {
    CAPTURE(stop);
    const Outcome part = Run{overrides, folder.path(), false, stop}.outcome();
    REQUIRE_FALSE(part.finished);
    const Outcome again = Run{overrides, folder.path(), true}.outcome();
    CHECK(again.model == whole.model);
    CHECK(again.rounds == whole.rounds);
    CHECK(again == whole);
    CHECK(std::filesystem::is_empty(folder.path()));  // nothing is left to go on with
  }
}

}  // namespace

TEST_CASE("a run that was stopped behind any round goes on to the same bits") {
  check_resumes(kRounds, {1, 2, 3, 4, 5, 6, 7, 8});
}

TEST_CASE("what error feedback left to devices survives a stop") {
  for (const std::string compressor : {"top-k:0.1", "eden-1+error-feedback"}) {
    check_resumes(kRounds + Overrides{"client.compressor=" + compressor}, {1, 3, 7});
    check_resumes(kAsynchronous + Overrides{"client.compressor=" + compressor}, {2, 5});
  }
  check_resumes(kRounds + Overrides{"client.compressor=int4+error-feedback",
                                    "secure-aggregation.mode=honest-but-curious",
                                    "secure-aggregation.max-weight=1000"},
                {1, 4});
}

TEST_CASE("a journal changes nothing of what a run computes") {
  ScratchFolder folder("resume-neutral");
  CHECK(Run{kRounds, folder.path()}.outcome() == Run{kRounds, ""}.outcome());
}

TEST_CASE("a run that was stopped again and again, with other threads, goes on to the same bits") {
  ScratchFolder folder("resume-often");
  const Outcome whole = Run{kRounds, ""}.outcome();
  Run{kRounds, folder.path(), false, 2}.outcome();
  for (const std::uint32_t stop : {3U, 5U, 6U, 8U}) {
    Run run{kRounds, folder.path(), true, stop};
    run.threads = 1 + stop % 3;
    CHECK_FALSE(run.outcome().finished);
  }
  CHECK(Run{kRounds, folder.path(), true}.outcome() == whole);
}

TEST_CASE("a run goes on from a snapshot that is older than where it stopped") {
  ScratchFolder folder("resume-old");
  const Outcome whole = Run{kRounds, ""}.outcome();
  // Only the first committed round becomes a snapshot.
  Run{kRounds, folder.path(), false, 6, std::chrono::hours(1)}.outcome();
  CHECK(Run{kRounds, folder.path(), true}.outcome() == whole);
}

TEST_CASE("asynchronous runs go on, with updates and models of several ages under way") {
  const Overrides slow =
      kAsynchronous + Overrides{"fleet.up-mbit-s=[0.01, 0.2]", "fleet.down-mbit-s=[0.01, 0.2]",
                                "server.chunk-bytes=1024"};
  check_resumes(kAsynchronous, {2, 4, 6, 8});
  check_resumes(slow, {1, 3, 5, 7});
  check_resumes(slow + Overrides{"fleet.codec=true"}, {4});
  // FedAsync asks for the model that an update began with.
  check_resumes(slow + Overrides{"strategy.name=fedasync", "asynchronous.buffer=1"}, {4});
}

TEST_CASE("a snapshot holds models by round, and those of the same run are the same") {
  const Overrides slow =
      kAsynchronous + Overrides{"fleet.up-mbit-s=[0.01, 0.2]", "fleet.down-mbit-s=[0.01, 0.2]",
                                "server.chunk-bytes=1024"};
  const auto snapshot = [&] {
    ScratchFolder folder("resume-snapshot");
    Run run{slow, folder.path(), false, 7};
    run.threads = 1;
    run.outcome();
    auto read = simulation::read_snapshot(folder / "snapshot.bin");
    REQUIRE(read.ok());
    REQUIRE(*read);
    return std::move(**read);
  };
  const auto first = snapshot(), second = snapshot();
  REQUIRE(first.models.size() > 2);  // there is something to put in order
  REQUIRE(first.parameters.size() > 2);
  // An fp32 model is sent as it is kept; behind these are what devices put together of pieces.
  std::vector<std::size_t> order;
  std::vector<Digest> copies;
  for (const SharedBytes& model : first.models) {
    const auto kept = std::ranges::find(first.parameters, model.data(), [](const auto& parameters) {
      return parameters.bytes.data();
    });
    if (kept == first.parameters.end()) {
      copies.push_back(model.digest());
    } else {
      CHECK(copies.empty());
      order.push_back(static_cast<std::size_t>(kept - first.parameters.begin()));
    }
  }
  CHECK(order.size() > 2);
  CHECK(std::ranges::is_sorted(order));
  CHECK(std::ranges::is_sorted(copies));
  CHECK(std::ranges::is_sorted(first.parameters, {}, &simulation::Snapshot::Parameters::round));
  CHECK(first.trainings == second.trainings);
  CHECK(first.state == second.state);
  CHECK(std::ranges::equal(first.models, second.models, {}, &SharedBytes::digest,
                           &SharedBytes::digest));
}

TEST_CASE("secure sums, noise and every precision go on to the same bits") {
  check_resumes(kRounds + Overrides{"client.precision=int8", "fleet.codec=true"}, {3, 6});
  check_resumes(kRounds + Overrides{"secure-aggregation.mode=honest-but-curious",
                                    "secure-aggregation.max-weight=300"},
                {2, 5});
  check_resumes(kRounds + Overrides{"privacy.mechanism=central-gaussian",
                                    "privacy.noise-multiplier=0.5", "privacy.clip-norm=1"},
                {2, 5});
}

TEST_CASE("runs whose devices are sent a compressed model go on to the same bits") {
  check_resumes(kRounds + Overrides{"server.model-compressor=int4"}, {1, 5});
  check_resumes(kRounds + Overrides{"server.model-compressor=eden-2", "fleet.codec=true"}, {4});
  check_resumes(kAsynchronous + Overrides{"server.model-compressor=int8"}, {4});
}

TEST_CASE("strategies that see single updates, or sums of their own, go on to the same bits") {
  check_resumes(kRounds + Overrides{"strategy.name=fedmedian"}, {4});
  check_resumes(kRounds + Overrides{"strategy.name=qfedavg"}, {4});
}

TEST_CASE("every way to select devices goes on with the same cohorts") {
  for (const std::string policy : {"oort", "power-of-choice", "by-availability"}) {
    check_resumes(
        kRounds + Overrides{"selection.policy=" + policy, "selection.max-participations=6"}, {4});
  }
}

TEST_CASE("classes of devices with plans of their own go on to the same bits") {
  const Overrides classes = {
      "model.preset=2nn", "fleet.mix=phones", "client.class.low-end.width=0.5",
      "client.class.low-end.precision=bf16", "client.class.high-end.local-epochs=2"};
  check_resumes(Overrides{"selection.fraction-fit=0.3", "selection.quorum=0.5",
                          "selection.round-deadline-s=20000"} +
                    classes,
                {3});
}

TEST_CASE("devices that come and go, and go on training when they are back, change nothing") {
  check_resumes(kRounds + Overrides{"fleet.availability=flaky", "selection.round-deadline-s=4000",
                                    "fleet.gflops=[0.00001, 0.001]"},
                {2, 5});
}

TEST_CASE("a run that stopped before its first commit begins again") {
  ScratchFolder folder("resume-none");
  CHECK(Run{kRounds, folder.path(), true}.outcome() == Run{kRounds, ""}.outcome());
}

TEST_CASE("another run file, a damaged journal and faults are refused with a sentence") {
  ScratchFolder folder("resume-refused");
  Run{kRounds, folder.path(), false, 4}.outcome();
  const auto refusal = [&](const Overrides& overrides) {
    const auto result = Run{kRounds + overrides, folder.path(), true}.result();
    REQUIRE_FALSE(result.ok());
    return result.error().message;
  };
  CHECK(refusal({"run.seed=5"}).find("run.toml was changed") != std::string::npos);
  CHECK(refusal({"faults.seed=3"}).find("faults") != std::string::npos);
  CHECK(refusal({"fleet.keep-model=true"}).find("fleet.keep-model") != std::string::npos);
  const std::string path = folder / "journal.bin";
  const auto good = read_bytes(path);
  write_bytes(path, good.substr(0, good.size() / 2));
  CHECK(refusal({}).find("journal.bin is damaged") != std::string::npos);
  std::filesystem::remove(path);
  CHECK(refusal({}).find("journal.bin") != std::string::npos);
}

TEST_CASE("a run stopped on the way back to where it was says so and can go on") {
  ScratchFolder folder("resume-hasty");
  const Outcome whole = Run{kRounds, ""}.outcome();
  Run{kRounds, folder.path(), false, 7}.outcome();
  const auto hasty = Run{kRounds, folder.path(), true, 2}.result();
  REQUIRE_FALSE(hasty.ok());
  CHECK(hasty.error().message.find("on the way") != std::string::npos);
  CHECK(Run{kRounds, folder.path(), true}.outcome() == whole);
}
