#include <catch2/catch.hpp>
#include <covey/client/memory_estimate.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

/// A device of 12 examples whose process takes 6 MiB, with a ceiling.
ParticipantOptions options_with_ceiling(std::uint64_t max_bytes) {
  ParticipantOptions options = small_options();
  options.check_plan = [max_bytes](const TrainingPlan& plan) {
    return check_memory(plan, strategies::Registry::with_built_ins(),
                        {.num_examples = 12, .process_bytes = 6 << 20, .data_bytes = 0}, max_bytes);
  };
  return options;
}

}  // namespace

TEST_CASE(
    "a plan that does not fit the device's memory is declined before anything is downloaded") {
  World world(options_with_ceiling(7 << 20));
  Assignment& assignment = world.server.assignment;
  assignment.plan.model = *preset_model("2nn", {784}, 10);
  assignment.model_size = 4 * (784 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10);
  world.start();
  world.run_until_phase("pausing");
  const auto declines = sent<Decline>(world.log);
  REQUIRE(declines.size() == 1);
  CHECK_THAT(declines[0].reason,
             Catch::Matches("training takes [0-9.]+ MiB of memory, this device allows 7.0 MiB"));
  CHECK(sent<BlobRequest>(world.log).empty());
}

TEST_CASE("a plan that fits the device's memory is taken") {
  World world(options_with_ceiling(8 << 20));
  world.start();
  world.run_until_phase("training");
  CHECK(sent<Decline>(world.log).empty());
}
