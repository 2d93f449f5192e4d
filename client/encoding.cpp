#include "encoding.hpp"

#include <bit>
#include <cstdint>

namespace covey::client {

Result<void> check_encoding(const TrainingPlan& plan) {
  if (plan.precision != "fp32") {
    return failed("the plan asks to train in precision \"" + plan.precision + "\"; there is fp32");
  }
  if (plan.compressor != "fp32") {
    return failed("the plan asks to encode the update with \"" + plan.compressor +
                  "\"; there is fp32");
  }
  return {};
}

bool all_finite(std::span<const float> values) {
  // Exponent bits all set: infinite or not a number (IEEE 754-2008, 3.4). No branch, so it
  // vectorises.
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t bad = 0;
  for (const float value : values) {
    bad |=
        static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent);
  }
  return bad == 0;
}

}  // namespace covey::client
