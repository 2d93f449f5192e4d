// How often a device takes part, what the coordinator's policies learn from round to round, and
// what classes of devices are sent, with scripted devices.

#include <catch2/catch.hpp>
#include <covey/server/plan_variants.hpp>
#include <covey/strategies/registry.hpp>
#include <set>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;
using std::chrono::minutes;

namespace {

using Cohorts = std::vector<std::set<std::uint64_t>>;

/// Rounds of two of four devices.
CoordinatorOptions two_of_four(std::uint32_t rounds) {
  CoordinatorOptions options = default_options(4);
  options.config.num_rounds = rounds;
  options.config.selection.fraction_fit = 0.5;
  return options;
}

/// Whoever was told to come later comes now.
void come_back(CoordinatorHarness& h) {
  for (auto& [client, device] : h.devices) {
    if (!device.task && !device.inbox.empty() &&
        std::holds_alternative<RetryLater>(device.inbox.back())) {
      h.speak(device, CheckIn{device.conditions});
    }
  }
}

/// Plays until the run is over, or nothing has happened for an hour.
void play(CoordinatorHarness& h) {
  for (int turn = 0; turn < 60 && !h.finished; ++turn) {
    come_back(h);
    h.advance(minutes(1));
  }
}

/// Who was counted in each committed round.
Cohorts cohorts_of(const CoordinatorHarness& h, std::uint32_t rounds) {
  Cohorts cohorts(rounds);
  for (const auto& [key, times] : h.counted) {
    CHECK(times == 1);
    cohorts.at(value_of(key.first) - 1).insert(value_of(key.second));
  }
  return cohorts;
}

std::string problem_of(const std::string& text) {
  const auto config = parse_run_text(text, "run.toml", {});
  return config.ok() ? "" : config.error().message;
}

bool says(const std::string& text, std::initializer_list<const char*> words) {
  INFO(text);
  return std::ranges::all_of(
      words, [&](const char* word) { return text.find(word) != std::string::npos; });
}

}  // namespace

// ---- limits

TEST_CASE("devices rest for as many rounds as min-rounds-between says") {
  CoordinatorOptions options = two_of_four(6);
  options.config.selection.min_rounds_between = 1;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 4);
  play(h);
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  const Cohorts cohorts = cohorts_of(h, 6);
  for (std::size_t round = 0; round + 1 < cohorts.size(); ++round) {
    INFO("round " << round + 1);
    CHECK(cohorts[round].size() == 2);
    for (const std::uint64_t client : cohorts[round]) CHECK(cohorts[round + 1].count(client) == 0);
  }
}

TEST_CASE("a device that rests is told to come back when its rounds are over") {
  CoordinatorOptions options = two_of_four(3);
  options.config.selection.min_rounds_between = 1;
  CoordinatorHarness h(options);
  h.judges_at_once = false;
  h.start();
  h.add_fleet(1, 4);
  h.advance(std::chrono::seconds(10));
  h.release_held();  // the round took ten seconds
  std::size_t told = 0;
  for (const auto& [client, device] : h.devices) {
    const auto* later = device.last<RetryLater>();
    if (later == nullptr) continue;
    ++told;
    CHECK(later->window.delay_min == std::chrono::seconds(10));
    CHECK(later->window.delay_max == std::chrono::seconds(20));
    CHECK(says(later->reason, {"selection.min-rounds-between"}));
  }
  CHECK(told == 2);
}

TEST_CASE("a device takes part as often as max-participations lets it, and no more") {
  CoordinatorOptions options = two_of_four(3);
  options.config.selection.max_participations = 2;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 4);
  play(h);
  REQUIRE(h.finished);
  CHECK(h.finished->ok);
  std::map<std::uint64_t, int> times;
  for (const auto& cohort : cohorts_of(h, 3)) {
    for (const std::uint64_t client : cohort) ++times[client];
  }
  for (const auto& [client, count] : times) CHECK(count <= 2);
  std::size_t recorded = 0;
  for (const Action& action : h.log) {
    if (const auto* commit = std::get_if<CommitRound>(&action))
      recorded += commit->participants.size();
  }
  CHECK(recorded == 6);  // for the store, so that a server that starts again knows
}

TEST_CASE("the smaller of the two limits on participations counts") {
  for (const bool privacy_is_smaller : {false, true}) {
    CoordinatorOptions options = two_of_four(2);
    options.config.selection.max_participations = privacy_is_smaller ? 5 : 1;
    options.config.privacy.max_participations = privacy_is_smaller ? 1 : 5;
    CoordinatorHarness h(options);
    h.start();
    h.add_fleet(1, 4);
    play(h);
    REQUIRE(h.finished);
    const Cohorts cohorts = cohorts_of(h, 2);
    for (const std::uint64_t client : cohorts[0]) CHECK(cohorts[1].count(client) == 0);
  }
}

TEST_CASE("participations of before a restart keep a device out") {
  CoordinatorOptions options = two_of_four(2);
  options.config.selection.max_participations = 1;
  CoordinatorHarness h(options);
  RunState state{CoordinatorHarness::kRun, RoundNumber{1}, fp32_model(1)};
  state.participations = {{ClientId{2}, 1}, {ClientId{3}, 1}};
  h.coordinator = RoundCoordinator(options, std::move(state));
  h.start();
  h.add_fleet(1, 4);
  play(h);
  REQUIRE(h.finished);
  CHECK(cohorts_of(h, 2)[1] == std::set<std::uint64_t>{1, 4});
  CHECK(says(h.device(2).last<RetryLater>()->reason, {"selection.max-participations"}));
}

TEST_CASE("a device that rested when the server stopped rests on when it starts again") {
  CoordinatorOptions options = two_of_four(2);
  options.config.selection.min_rounds_between = 1;
  RunState state{CoordinatorHarness::kRun, RoundNumber{1}, fp32_model(1)};
  state.last_rounds = {{ClientId{1}, RoundNumber{1}}, {ClientId{4}, RoundNumber{1}}};
  state.metrics = RoundMetrics{};
  state.metrics->round = RoundNumber{1};
  state.metrics->ended = Time(minutes(3));
  state.metrics->accuracy = 0.5;
  CoordinatorHarness h(options);
  h.coordinator = RoundCoordinator(options, std::move(state));
  h.now = Time(minutes(5));
  h.start();
  h.add_fleet(1, 4);
  REQUIRE(h.finished);  // at once: nobody waits for those who may not be drawn
  CHECK(cohorts_of(h, 2)[1] == std::set<std::uint64_t>{2, 3});
  for (const std::uint64_t client : {1, 4}) {
    REQUIRE(h.device(client).last<RetryLater>() != nullptr);
    CHECK(h.device(client).last<RetryLater>()->window.delay_min == minutes(3));  // as round 1 took
  }
  const auto commit = std::ranges::find_if(
      h.log, [](const Action& action) { return std::holds_alternative<CommitRound>(action); });
  REQUIRE(commit != h.log.end());
  CHECK(std::get<CommitRound>(*commit).participants == std::vector{ClientId{2}, ClientId{3}});
}

TEST_CASE("a run that has used up its devices ends and says so") {
  CoordinatorOptions options = two_of_four(3);
  options.config.selection.max_participations = 1;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 4);
  play(h);
  REQUIRE(h.finished);
  CHECK_FALSE(h.finished->ok);
  CHECK(says(h.finished->reason, {"4 of 4 devices", "selection.max-participations", "round 3"}));
  CHECK(value_of(h.coordinator.committed_round()) == 2);
}

TEST_CASE("limits hold where rounds are asynchronous") {
  CoordinatorOptions options = default_options(3);
  options.config.num_rounds = 3;
  options.config.asynchronous.buffer = 1;
  options.config.asynchronous.concurrency = 3;
  options.config.selection.max_participations = 1;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 3);
  play(h);
  REQUIRE(h.finished);
  std::map<std::uint64_t, int> times;
  for (const Action& action : h.log) {
    if (const auto* commit = std::get_if<CommitRound>(&action)) {
      for (const ClientId client : commit->participants) ++times[value_of(client)];
    }
  }
  CHECK(times == std::map<std::uint64_t, int>{{1, 1}, {2, 1}, {3, 1}});
}

TEST_CASE("limits that leave too few devices are named at start") {
  RunConfig config = two_of_four(10).config;
  CHECK(check_participation_limits(config, 4).ok());
  config.selection.min_rounds_between = 1;
  CHECK(check_participation_limits(config, 4).ok());  // two and two
  config.selection.min_rounds_between = 2;
  auto checked = check_participation_limits(config, 4);
  REQUIRE_FALSE(checked.ok());
  CHECK(says(checked.error().message, {"selection.min-rounds-between = 2", "6", "4"}));
  config.selection.min_rounds_between = 0;
  config.selection.max_participations = 4;
  checked = check_participation_limits(config, 4);  // 16 contributions for 20
  REQUIRE_FALSE(checked.ok());
  CHECK(
      says(checked.error().message, {"selection.max-participations = 4", "16", "10 rounds of 2"}));
}

// ---- policies, round by round

TEST_CASE("by availability a device that has just come is drawn before those who were there") {
  CoordinatorOptions options = default_options(5);
  options.config.num_rounds = 3;
  options.config.selection.fraction_fit = 0.2;
  options.config.selection.policy = "by-availability";
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 4);
  h.advance(minutes(1) + std::chrono::seconds(1));  // round 1 starts at the timeout, with four
  REQUIRE(value_of(h.coordinator.committed_round()) == 1);
  h.add_fleet(5, 5);  // now all are there: rounds 2 and 3
  REQUIRE(h.finished);
  const Cohorts cohorts = cohorts_of(h, 3);
  CHECK(cohorts[0].size() == 1);
  CHECK(cohorts[1] == std::set<std::uint64_t>{5});  // in one round, the others in two
  CHECK(cohorts[2] == std::set<std::uint64_t>{5});  // in two, the others in three
}

TEST_CASE("power of choice comes back to the devices with the largest losses") {
  CoordinatorOptions options = two_of_four(4);
  options.config.selection.policy = "power-of-choice";
  options.config.selection.candidates = 4;
  CoordinatorHarness h(options);  // a device reports its number as its loss
  h.start();
  h.add_fleet(1, 4);
  play(h);
  REQUIRE(h.finished);
  const Cohorts cohorts = cohorts_of(h, 4);
  std::set<std::uint64_t> tried = cohorts[0];
  tried.insert(cohorts[1].begin(), cohorts[1].end());
  CHECK(tried == std::set<std::uint64_t>{1, 2, 3, 4});  // who was never asked comes first
  CHECK(cohorts[2] == std::set<std::uint64_t>{3, 4});
  CHECK(cohorts[3] == std::set<std::uint64_t>{3, 4});
}

TEST_CASE("oort that explores nothing stays with the devices it knows") {
  CoordinatorOptions options = two_of_four(5);
  options.config.selection.policy = "oort";
  options.config.selection.exploration = options.config.selection.exploration_min = 0;
  CoordinatorHarness h(options);
  h.start();
  h.add_fleet(1, 4);
  play(h);
  REQUIRE(h.finished);
  const Cohorts cohorts = cohorts_of(h, 5);
  for (const auto& cohort : cohorts) CHECK(cohort == cohorts[0]);
}

// ---- bad configurations

TEST_CASE("policies by loss are refused where the server sees no loss, with file and line") {
  for (const char* policy : {"oort", "power-of-choice"}) {
    const std::string selection = std::string("[selection]\npolicy = \"") + policy + "\"\n";
    CHECK(problem_of(selection) == "");
    CHECK(says(problem_of(selection + "[privacy]\nmechanism = \"central-gaussian\"\n"
                                      "noise-multiplier = 1.0\n"),
               {"run.toml:2", "selection.policy", policy, "privacy.mechanism"}));
    CHECK(says(problem_of(selection + "[secure-aggregation]\nmode = \"honest-but-curious\"\n"
                                      "max-weight = 100.0\n"),
               {"run.toml:2", "selection.policy", policy, "secure-aggregation.mode"}));
  }
}

TEST_CASE("figures of a policy say nothing under another one") {
  for (const char* key : {"exploration = 0.5", "exploration-decay = 0.9", "exploration-min = 0.1",
                          "round-penalty = 1.0"}) {
    CHECK(says(problem_of(std::string("[selection]\n") + key + "\n"), {"run.toml:2", "oort"}));
    CHECK(problem_of(std::string("[selection]\npolicy = \"oort\"\n") + key + "\n") == "");
  }
  CHECK(says(problem_of("[selection]\ncandidates = 50\n"), {"run.toml:2", "power-of-choice"}));
}

TEST_CASE("fewer candidates than a round selects are refused") {
  const std::string run = "[partition]\nclients = 100\n[selection]\npolicy = \"power-of-choice\"\n";
  CHECK(problem_of(run + "candidates = 10\n") == "");  // a tenth of a hundred
  CHECK(says(problem_of(run + "candidates = 9\n"), {"run.toml:5", "selection.candidates", "10"}));
  CHECK(says(problem_of(run + "candidates = 12\nover-selection = 1.3\n"),
             {"selection.candidates", "13"}));
  CHECK(says(problem_of("[selection]\npolicy = \"oort\"\nexploration = 0.1\n"),
             {"selection.exploration-min"}));
}

// ---- classes of devices

TEST_CASE("each device is sent the plan and the model of its class, and held to them") {
  // One dense layer before another, so that there is a hidden one: 3x4 + 4 + 4x2 + 2 = 26
  // parameters.
  const ModelSpec spec{.input_shape = {3},
                       .layers = {{.kind = LayerKind::kDense, .units = 4},
                                  {.kind = LayerKind::kRelu},
                                  {.kind = LayerKind::kDense, .units = 2}}};
  CoordinatorOptions options = default_options(2);
  options.plan.model = spec;
  options.plan.local_epochs = 3;
  ClientClassConfig half;
  half.name = "half";
  half.width = 0.5;  // 3x2 + 2 + 2x2 + 2 = 14 parameters
  half.local_epochs = 1;
  half.precision = "bf16";
  options.config.client.classes = {half};
  ModelLayout layout;
  for (const auto& [name, shape] :
       std::vector<std::pair<const char*, std::vector<std::uint32_t>>>{{"dense1.weight", {3, 4}},
                                                                       {"dense1.bias", {4}},
                                                                       {"dense2.weight", {4, 2}},
                                                                       {"dense2.bias", {2}}}) {
    layout.append(name, shape);
  }
  const auto fedavg = strategies::Registry::with_built_ins().make("fedavg", {});
  REQUIRE(fedavg.ok());
  auto variants = PlanVariants::make(options.config, options.plan, layout, **fedavg);
  REQUIRE(variants.ok());
  options.variants = std::make_shared<const PlanVariants>(std::move(*variants));
  options.compressors = {OfferedCompressor::of_size("fp32", 4 * 26)};

  EncodedModel model{filled(1, 4 * 26), filled(1, 4 * 26), {filled(2, 2 * 14)}};
  CoordinatorHarness h(options, {}, model);
  h.start();
  ScriptedDevice& whole = h.add(1);
  ScriptedDevice& small = h.add(2);
  whole.reports = small.reports = false;
  whole.conditions.device_class = "unheard-of";
  small.conditions.device_class = "half";
  small.conditions.precisions = {"fp32"};  // not yet what its class trains in
  h.connect(whole);
  h.connect(small);
  h.settle();
  REQUIRE(small.last<RetryLater>() != nullptr);
  CHECK(says(small.last<RetryLater>()->reason, {"bf16"}));
  small.conditions.precisions = {"bf16"};
  small.conditions.compressors = {"bf16"};
  h.speak(small, CheckIn{small.conditions});

  REQUIRE(whole.task);
  REQUIRE(small.task);
  CHECK(whole.task->plan.local_epochs == 3);
  CHECK(whole.task->plan.model == spec);
  CHECK(whole.task->model == model.sent.digest());
  CHECK(small.task->plan.local_epochs == 1);
  CHECK(small.task->plan.precision == "bf16");
  CHECK(small.task->plan.model.layers[0].units == 2);
  CHECK(small.task->model == model.variants[0].digest());
  CHECK(small.task->model_size == 28);
  CHECK(small.downloaded == 28);
  h.speak(small, BlobRequest{model.sent.digest(), 0, 16});  // another class's
  CHECK(small.count<BlobMissing>() == 1);

  // It comes back as something else: the task at hand is the one it was given.
  h.lose_connection(small);
  small.conditions.device_class = "";
  h.connect(small);
  h.settle();
  CHECK(small.count<Assignment>() == 2);
  CHECK(small.last<Assignment>()->plan.precision == "bf16");

  Report report;
  report.run = small.task->run;
  report.round = small.task->round;
  report.blob = sha256(filled(3, 4 * 26).span());
  report.blob_size = 4 * 26;
  report.weight = 1;
  h.speak(small, report);
  REQUIRE(small.last<ReportRejected>() != nullptr);
  CHECK(small.last<ReportRejected>()->reason == RejectReason::kWrongSize);
  CHECK(says(small.last<ReportRejected>()->text, {"bf16", "28"}));
}
