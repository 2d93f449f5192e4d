// Input: one byte that says what the rest is: bit 0 an availability or a capacity trace, bit 1 CSV
// or JSON. A trace that is accepted must speak of every moment, and a change must never lie behind.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "simulation/devices/traces.hpp"

namespace {

using namespace covey;
using namespace covey::simulation;

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void fuzz_capacity(std::string_view text, const char* name) {
  const auto trace = CapacityTrace::parse(text, name);
  if (!trace.ok()) return;
  check(trace->size() > 0, "a trace without devices was accepted");
  for (std::uint64_t i = 0; i < trace->size(); ++i) {
    const CapacityTrace::Capacity& one = trace->of(ClientId{i});
    check(std::isfinite(one.seconds_per_example()) && one.seconds_per_example() > 0,
          "an accepted device takes no time");
    check(std::isfinite(one.bytes_per_s()) && one.bytes_per_s() > 0,
          "an accepted device has no bandwidth");
  }
}

/// The first changes of some devices, and the moment before each.
void fuzz_availability(std::string_view text, const char* name) {
  const auto trace = AvailabilityTrace::parse(text, name);
  if (!trace.ok()) return;
  check(trace->size() > 0, "a trace without devices was accepted");
  constexpr std::uint64_t kDevices = 8;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(trace->size(), kDevices); ++i) {
    Time at{};
    for (int change = 0; change < 32 && at != Time::max(); ++change) {
      const Surroundings now = trace->surroundings(ClientId{i}, at);
      check(now.until > at, "surroundings end before they begin");
      if (now.until == Time::max()) break;
      const Surroundings last = trace->surroundings(ClientId{i}, now.until - Duration(1));
      check(last.online == now.online && last.until == now.until, "surroundings change unseen");
      at = now.until;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const char* name = (data[0] & 2) != 0 ? "trace.csv" : "trace.json";
  if ((data[0] & 1) != 0) {
    fuzz_availability(text, name);
  } else {
    fuzz_capacity(text, name);
  }
  return 0;
}
