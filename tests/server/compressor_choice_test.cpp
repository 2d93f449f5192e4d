#include <catch2/catch.hpp>

#include "coordinator_harness.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

namespace {

/// Three ways to send an update, by preference; the last has the size of the harness's updates.
CoordinatorOptions negotiating(std::uint32_t population) {
  CoordinatorOptions options = default_options(population);
  options.compressors = {OfferedCompressor::of_size("eden-1", kModelBytes / 16),
                         OfferedCompressor::of_size("int8", kModelBytes / 4),
                         OfferedCompressor::of_size("fp32", kModelBytes)};
  options.compressors[0].sizes = {10, 20};
  options.plan.compressor = "eden-1";
  return options;
}

}  // namespace

TEST_CASE("the first of the offered compressors that a device supports is chosen") {
  const auto options = negotiating(1);
  const auto chosen = [&](const std::vector<std::string>& names) {
    return choose_compressor(options.compressors, names);
  };
  CHECK(chosen(compressor_names()) == 0);
  CHECK(chosen({"fp32", "int8"}) == 1);
  CHECK(chosen({"fp32"}) == 2);
  CHECK_FALSE(chosen({"top-k"}));
  CHECK_FALSE(chosen({}));
  CHECK(names_of(options.compressors) == "eden-1, int8 or fp32");
}

TEST_CASE("each device is asked for the compressor that it supports, and judged by it") {
  CoordinatorHarness h(negotiating(3));
  h.start();
  ScriptedDevice& rich = h.add(1);
  ScriptedDevice& old = h.add(2);
  ScriptedDevice& oldest = h.add(3);
  rich.conditions.compressors = compressor_names();
  old.conditions.compressors = {"fp32", "bf16", "int8"};
  for (auto* device : {&rich, &old, &oldest}) {
    device->reports = false;
    h.connect(*device);
  }
  h.settle();
  REQUIRE(rich.task);
  REQUIRE(old.task);
  REQUIRE(oldest.task);
  CHECK(rich.task->plan.compressor == "eden-1");
  CHECK(old.task->plan.compressor == "int8");
  CHECK(oldest.task->plan.compressor == "fp32");

  // The harness's updates have the size of fp32.
  h.speak(oldest, oldest.report());
  CHECK(oldest.last<UploadGrant>() != nullptr);
  h.speak(old, old.report());
  REQUIRE(old.last<ReportRejected>() != nullptr);
  CHECK(old.last<ReportRejected>()->reason == RejectReason::kWrongSize);
  CHECK_THAT(old.last<ReportRejected>()->text, Catch::Contains("as int8"));
  Report report = rich.report();
  report.blob_size = 21;
  h.speak(rich, report);
  REQUIRE(rich.last<ReportRejected>() != nullptr);
  CHECK_THAT(rich.last<ReportRejected>()->text, Catch::Contains("as eden-1 an update of this model "
                                                                "has 10 to 20"));
}

TEST_CASE(
    "an upload may have any size that its compressor makes, and no more bytes than announced") {
  CoordinatorHarness h(negotiating(1));
  h.start();
  ScriptedDevice& device = h.add(1);
  device.conditions.compressors = compressor_names();
  device.reports = false;
  h.connect(device);
  h.settle();
  Report report = device.report();
  report.blob_size = 15;
  h.speak(device, report);
  bool opened = false;
  for (const Action& action : h.log) {
    if (const auto* open = std::get_if<OpenUpload>(&action)) {
      opened = true;
      CHECK(open->size == 15);
    }
  }
  CHECK(opened);
  h.speak(device, BlobChunk{report.blob, 0, filled(1, 16)});
  REQUIRE(device.last<Refusal>() != nullptr);
  CHECK(device.last<Refusal>()->reason == RefusalReason::kProtocol);
}

TEST_CASE("a device that supports none of the compressors is told so") {
  CoordinatorHarness h(negotiating(1));
  h.start();
  ScriptedDevice& device = h.add(1);
  device.conditions.compressors = {"top-k", "error-feedback"};
  h.connect(device);
  h.settle();
  REQUIRE(device.last<RetryLater>() != nullptr);
  CHECK(device.last<RetryLater>()->reason ==
        "the device cannot encode updates as eden-1, int8 or fp32");
  CHECK(device.last<Assignment>() == nullptr);
}

TEST_CASE("a device that connects again in its round keeps the compressor it was asked for") {
  CoordinatorHarness h(negotiating(1));
  h.start();
  ScriptedDevice& device = h.add(1);
  device.conditions.compressors = {"int8"};
  device.reports = false;
  h.connect(device);
  h.settle();
  REQUIRE(device.task);
  CHECK(device.task->plan.compressor == "int8");
  h.lose_connection(device);
  h.settle();
  device.conditions.compressors = compressor_names();  // its program was replaced meanwhile
  h.connect(device);
  h.settle();
  CHECK(device.count<Assignment>() == 2);
  CHECK(device.task->plan.compressor == "int8");
}

TEST_CASE("a server that starts again asks each device for the same compressor as before") {
  for (int life = 0; life < 2; ++life) {
    CoordinatorHarness h(negotiating(2));
    h.start();
    h.add(1).conditions.compressors = {"fp32", "int8"};
    h.add(2).conditions.compressors = {"fp32"};
    for (const std::uint64_t client : {1, 2}) {
      h.device(client).reports = false;
      h.connect(h.device(client));
    }
    h.settle();
    REQUIRE(h.device(1).task);
    CHECK(h.device(1).task->plan.compressor == "int8");
    CHECK(h.device(2).task->plan.compressor == "fp32");
  }
}
