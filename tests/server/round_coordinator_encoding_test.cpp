#include <catch2/catch.hpp>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

TEST_CASE("devices are sent the encoded model, while the store keeps the fp32 one") {
  auto options = default_options(2);
  options.config.num_rounds = 2;
  constexpr std::size_t kSentBytes = kModelFloats + 4;  // a byte a weight and a scale
  const SharedBytes first = filled(70, kSentBytes), second = filled(71, kSentBytes);
  CoordinatorHarness h(options, RoundNumber{0}, {filled(0), first});
  h.sent_model = second;
  std::vector<Digest> assigned;
  h.fate = [&](const ScriptedDevice& device, const ClientMessage& message) {
    if (const auto* request = std::get_if<BlobRequest>(&message)) {
      if (request->offset == 0) assigned.push_back(request->blob);
      CHECK(device.task->model_size == kSentBytes);
    }
    return Fate::kDeliver;
  };
  h.start();
  h.add_fleet(1, 2);
  REQUIRE(h.finished);
  CHECK(assigned ==
        std::vector<Digest>{first.digest(), first.digest(), second.digest(), second.digest()});
  CHECK(h.published[0].bytes_down == 2 * kSentBytes);
  CHECK(h.published[0].bytes_up == 2 * kModelBytes);
  for (const Action& action : h.log) {
    const auto* commit = std::get_if<CommitRound>(&action);
    if (commit == nullptr) continue;
    REQUIRE(commit->model);
    CHECK(commit->model->size() == kModelBytes);
  }
  CHECK(h.coordinator.model().size() == kModelBytes);
}

TEST_CASE("a report of another size than the encoded update's is rejected before its bytes come") {
  auto options = default_options(1);
  options.compressors = {OfferedCompressor::of_size("int8", kModelBytes - 1)};
  CoordinatorHarness h(options);
  h.start();
  h.add(1).conditions.compressors = {"fp32", "int8"};
  std::vector<std::string> reasons;
  h.connect(h.device(1));
  for (int step = 0; step < 1000 && reasons.empty(); ++step) {
    h.settle();
    if (const auto* rejected = h.device(1).last<ReportRejected>())
      reasons.push_back(rejected->text);
  }
  REQUIRE(reasons.size() == 1);
  CHECK_THAT(reasons[0],
             Catch::Contains("256") && Catch::Contains("255") && Catch::Contains("int8"));
  CHECK(h.count<OpenUpload>() == 0);
}
