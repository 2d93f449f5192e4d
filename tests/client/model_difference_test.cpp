#include <catch2/catch.hpp>
#include <covey/compression/model_steps.hpp>

#include "client/model_download.hpp"
#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

TEST_CASE("steps that would keep a device busy for long are refused before any is decoded") {
  const SharedBytes base(std::vector<std::byte>(std::size_t{16} << 20));
  Assignment assignment = make_assignment(base, 5);
  const auto refusal = [&](std::uint32_t steps) {
    std::vector<std::byte> bytes;
    for (std::uint32_t i = 0; i < steps; ++i) {
      const auto frame = compression::frame_model_step(RoundNumber{i}, {});
      bytes.insert(bytes.end(), frame.begin(), frame.end());
    }
    CHECK(compression::count_model_steps(bytes) == steps);
    ModelDelta delta;
    delta.encoding = "steps:drive";
    const auto result = apply_difference(assignment, delta, base, SharedBytes(std::move(bytes)));
    REQUIRE_FALSE(result);  // those within the bound fail as they are empty
    return result.error().message;
  };
  CHECK(refusal(17).find("longer than a device may be busy") != std::string::npos);
  CHECK(refusal(16).find("longer than a device may be busy") == std::string::npos);
}
