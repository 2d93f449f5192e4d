// Rounds under differential privacy: what devices are asked, who is drawn, and when the budget ends
// the run.

#include <catch2/catch.hpp>
#include <cmath>

#include "sum_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

/// Central noise on the sums of plain updates, all devices in each round.
SumOptions central(std::uint32_t devices, std::uint32_t rounds) {
  SumOptions options{.model = ThreatModel::kNone, .devices = devices, .rounds = rounds};
  options.privacy.mechanism = "central-gaussian";
  options.privacy.noise_multiplier = 2;
  options.privacy.clip_norm = 0.5;
  options.privacy.amplification = false;
  return options;
}

/// Of each round that this device was assigned.
std::vector<PrivacyPlan> plans_of(const SumDevice& device) {
  std::vector<PrivacyPlan> plans;
  for (const ServerMessage& message : device.inbox) {
    if (const auto* task = std::get_if<Assignment>(&message)) plans.push_back(task->plan.privacy);
  }
  return plans;
}

std::map<ClientId, std::size_t> participations_of(const SumHarness& h) {
  std::map<ClientId, std::size_t> counts;
  for (const auto& round : h.participants) {
    for (const ClientId client : round) ++counts[client];
  }
  return counts;
}

}  // namespace

TEST_CASE("each round's metrics say what was spent, and of single devices nothing") {
  SumHarness h(central(5, 3));
  h.start();
  h.run_to_the_end();
  REQUIRE(h.published.size() == 3);
  double before = 0;
  for (const RoundMetrics& metrics : h.published) {
    CHECK(metrics.private_figures);
    REQUIRE(metrics.epsilon);
    CHECK(*metrics.epsilon > before);
    before = *metrics.epsilon;
    CHECK(metrics.delta == 1e-5);
    CHECK(metrics.noise_multiplier == 2);
    CHECK(metrics.clip_norm == 0.5);
    CHECK(metrics.examples == 0);
    CHECK(metrics.train_steps == 0);
  }
}

TEST_CASE("the clip norm of the round to come is in its plan, and the spent one in its metrics") {
  SumOptions options = central(60, 5);
  options.privacy.clip = "adaptive";
  options.privacy.noise_multiplier = 1;
  SumHarness h(options);
  h.start();
  h.run_to_the_end();
  const auto plans = plans_of(h.device(7));
  REQUIRE(plans.size() == 5);
  REQUIRE(h.published.size() == 5);
  for (std::size_t round = 0; round < 5; ++round) {
    CHECK(plans[round].clip == ClipKind::kAdaptive);
    CHECK(h.published[round].clip_norm == plans[round].clip_norm);
    // All devices say that they were within the norm: it shrinks by about exp(-0.2 / 2).
    if (round > 0) CHECK(plans[round].clip_norm < plans[round - 1].clip_norm);
  }
}

TEST_CASE("an update beyond the clip norm is rejected, since the noise does not cover it") {
  SumOptions options = central(4, 1);
  options.selection.quorum = 0.75;
  options.privacy.clip_norm = 1e-4;  // the harness's updates are longer
  SumHarness h(options);
  h.start();
  h.settle();
  CHECK(h.noted("update of client 1 rejected in round 1"));
  CHECK(h.noted("l2 norm"));
  CHECK(h.device(1).last<ReportRejected>()->reason == RejectReason::kOverNorm);
}

TEST_CASE("a spent budget ends the run with a sentence that says so") {
  SumOptions options = central(5, 100);
  options.privacy.epsilon = 3;
  SumHarness h(options);
  h.start();
  h.run_to_the_end();
  CHECK(h.finished->ok);
  INFO(h.finished->reason);
  CHECK(h.finished->reason.starts_with("the privacy budget is spent: epsilon "));
  CHECK(h.finished->reason.find("one more would take") != std::string::npos);
  REQUIRE_FALSE(h.published.empty());
  CHECK(h.published.size() < 100);
  CHECK(*h.published.back().epsilon <= 3);
  CHECK(*h.published.back().epsilon > 2);
  for (const auto& [client, device] : h.devices) {
    CHECK(device.last<Refusal>()->reason == RefusalReason::kRunFinished);
  }
}

TEST_CASE("a draw that privacy counts on is made among all devices, however long they take") {
  SumOptions options = central(10, 1);
  options.privacy.amplification = true;
  options.selection.fraction_fit = 0.5;
  options.selection.quorum = 0.2;
  options.selection.selection_timeout_s = 30;
  SumHarness h(options);
  h.device(10).away = true;
  h.start();
  h.settle();
  h.advance(100s);
  CHECK(h.coordinator->phase() == Phase::kSelection);
  CHECK(h.noted("round 1 still waits for devices: 9 are here, it needs 10"));
  h.connect(h.device(10));
  h.settle();
  CHECK(h.finished);

  SECTION("where it does not count on the draw, the timeout starts with who is there") {
    options.privacy.amplification = false;
    SumHarness without(options);
    without.device(10).away = true;
    without.start();
    without.settle();
    without.advance(31s);
    CHECK(without.finished);
  }
}

TEST_CASE(
    "each device is drawn by itself, and a round that draws nobody is a round like any other") {
  SumOptions options = central(6, 60);
  options.privacy.amplification = true;
  options.selection.policy = "poisson";
  options.selection.fraction_fit = 0.25;
  SumHarness h(options);
  h.start();
  h.run_to_the_end();
  REQUIRE(h.published.size() == 60);
  std::size_t drawn = 0, nobody = 0, all_released = 0;
  double before = 0;
  for (const RoundMetrics& metrics : h.published) {
    CHECK(metrics.committed);
    drawn += metrics.selected;
    nobody += metrics.selected == 0;
    all_released += metrics.accepted == metrics.selected;
    CHECK(*metrics.epsilon > before);  // also of a round of noise alone
    before = *metrics.epsilon;
  }
  CHECK(all_released == 60);
  // 360 draws of probability 1/4: 90, standard deviation 8.2. Nobody: 60 * 0.75^6 = 10.7, 3.0.
  CHECK(drawn > 50);
  CHECK(drawn < 130);
  CHECK(nobody > 0);
  CHECK(nobody < 26);
}

TEST_CASE("the noise of devices under secure aggregation is counted with the quorum") {
  SumOptions options{.devices = 5, .rounds = 2};
  options.privacy.mechanism = "discrete-gaussian";
  options.privacy.noise_multiplier = 1;
  options.privacy.accountant = "rdp";
  options.privacy.amplification = false;
  options.selection.quorum = 0.8;
  SumHarness h(options);
  // Two of five decline: of a plain round that would lower the quorum.
  h.deed = [](SumDevice& device, ClientMessage& message) {
    if (value_of(device.client) > 2 || !std::holds_alternative<AdvertiseKeys>(message)) {
      return Deed::kSay;
    }
    message = Decline{SumHarness::kRun, RoundNumber{1}, "not now"};
    return Deed::kSay;
  };
  h.start();
  h.settle();
  h.advance(1s);
  CHECK(
      h.noted("round 1 abandoned: secure aggregation: 3 of 5 selected devices are left, it needs "
              "4"));
  CHECK(h.sums.empty());
  h.deed = nullptr;
  for (const std::uint64_t client : {1, 2}) {
    h.lose_connection(h.device(client));
    h.connect(h.device(client));
  }
  h.run_to_the_end();
  CHECK(h.sums.size() == 2);
  CHECK(h.published.back().epsilon);
}

TEST_CASE("no device takes part more often than it may, in plain and in secure rounds") {
  for (const ThreatModel model : {ThreatModel::kNone, ThreatModel::kHonestButCurious}) {
    CAPTURE(std::string(to_string(model)));
    SumOptions options = central(8, 6);
    options.model = model;
    options.privacy.mechanism = "dp-ftrl";
    options.privacy.max_participations = 4;
    options.selection.fraction_fit = 0.5;
    SumHarness h(options);
    h.start();
    h.run_to_the_end();
    REQUIRE(h.participants.size() == 6);
    std::size_t most = 0, sent_away = 0;
    for (const auto& [client, count] : participations_of(h)) {
      CHECK(count <= 4);
      CHECK(h.devices.at(client).count<Assignment>() == count);
      most = std::max(most, count);
    }
    CHECK(most == 4);  // with this seed the limit was met, and kept
    for (const auto& [client, device] : h.devices) sent_away += device.count<RetryLater>();
    CHECK(sent_away > 0);
  }
}

TEST_CASE("a run that goes on remembers how often each device took part") {
  SumOptions options = central(4, 2);
  options.privacy.mechanism = "dp-ftrl";
  options.privacy.max_participations = 3;
  options.selection.fraction_fit = 0.25;
  options.participations = {{ClientId{1}, 3}, {ClientId{2}, 2}, {ClientId{3}, 3}, {ClientId{4}, 1}};
  SumHarness h(options);
  h.start();
  h.run_to_the_end();
  const auto counts = participations_of(h);
  CHECK_FALSE(counts.contains(ClientId{1}));
  CHECK(h.device(1).count<Assignment>() == 0);
  CHECK(h.device(1).last<RetryLater>()->reason ==
        "this device took part as often as privacy.max-participations lets it");
  CHECK_FALSE(counts.contains(ClientId{3}));
  for (const auto& [client, count] : counts) CHECK(count <= (client == ClientId{2} ? 1 : 2));
}

TEST_CASE("only committed rounds count as taken part in") {
  SumOptions options = central(4, 1);
  options.privacy.mechanism = "dp-ftrl";
  options.privacy.max_participations = 1;
  SumHarness h(options);
  h.deed = [](SumDevice& device, ClientMessage& message) {
    const bool silent = device.client == ClientId{4} && std::holds_alternative<Report>(message);
    return silent ? Deed::kVanish : Deed::kSay;
  };
  h.start();
  h.settle();
  h.advance(601s);
  CHECK(h.noted("round 1 abandoned: 3 of 4 selected devices reported"));
  h.deed = nullptr;
  h.connect(h.device(4));
  h.run_to_the_end();
  REQUIRE(h.participants.size() == 1);
  CHECK(h.participants[0].size() == 4);
}
