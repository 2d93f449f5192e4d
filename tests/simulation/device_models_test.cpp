#include "simulation/devices/device_models.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/run_config.hpp>
#include <map>
#include <string>
#include <vector>

namespace covey::simulation {
namespace {

constexpr std::uint32_t kPopulation = 20000;

RunConfig config_of(const std::string& fleet) {
  auto config = parse_run_text("[run]\nseed = 11\n" + fleet, "run.toml", {});
  if (!config.ok()) FAIL(config.error().message);
  return std::move(config).value();
}

DeviceModels models_of(const std::string& fleet) {
  auto models = DeviceModels::make(config_of(fleet), "", kPopulation);
  if (!models.ok()) FAIL(models.error().message);
  return std::move(models).value();
}

std::string error_of(const std::string& fleet, std::uint32_t population = kPopulation) {
  const auto models = DeviceModels::make(config_of(fleet), "", population);
  return models.ok() ? "(no error)" : models.error().message;
}

std::vector<DeviceTraits> all_traits(const DeviceModels& models) {
  std::vector<DeviceTraits> traits;
  for (std::uint64_t i = 0; i < kPopulation; ++i) traits.push_back(models.traits(ClientId{i}));
  return traits;
}

}  // namespace

TEST_CASE("a fleet of one kind has exactly the traits that were given, and no class") {
  const DeviceModels models = models_of(
      "[fleet]\nlatency-ms = 20\nup-mbit-s = 8\ngflops = 3\nmemory-mib = 64\nbattery-wh = 2\n"
      "radio-joules-per-mb = 5\n");
  const DeviceTraits traits = models.traits(ClientId{7});
  CHECK(traits.latency == std::chrono::milliseconds(20));
  CHECK(traits.up_bytes_per_s == 1e6);
  CHECK(traits.down_bytes_per_s == 0);  // unlimited
  CHECK(traits.flops_per_s == 3e9);
  CHECK(traits.memory_bytes == 64u << 20);
  CHECK(traits.battery_joules == 7200);
  CHECK(traits.radio_joules_per_byte == Approx(5e-6));
  CHECK(traits.seconds_per_example == 0);
  CHECK(models.class_name(traits.device_class).empty());
  CHECK(models.always_online());
  CHECK(models.has_bandwidths());
  CHECK_FALSE(models_of("").has_bandwidths());
}

TEST_CASE(
    "bandwidth and speed are drawn uniform in the logarithm, latency and memory as they are") {
  const DeviceModels models = models_of(
      "[fleet]\nup-mbit-s = [1, 100]\ngflops = [0.5, 8]\nlatency-ms = [10, 30]\n"
      "memory-mib = [100, 300]\n");
  std::vector<double> up, speed, latency, memory;
  for (const DeviceTraits& one : all_traits(models)) {
    up.push_back(one.up_bytes_per_s / 125000);
    speed.push_back(one.flops_per_s / 1e9);
    latency.push_back(seconds(one.latency) * 1e3);
    memory.push_back(static_cast<double>(one.memory_bytes) / (1 << 20));
  }
  const auto median = [](std::vector<double> values) {
    std::ranges::nth_element(values, values.begin() + kPopulation / 2);
    return values[kPopulation / 2];
  };
  // Of 20,000 uniform draws the median lies within 2% of the middle (5 standard errors).
  CHECK(std::log(median(up)) / std::log(100) == Approx(0.5).margin(0.02));          // 10
  CHECK(std::log(median(speed) / 0.5) / std::log(16) == Approx(0.5).margin(0.02));  // 2
  CHECK((median(latency) - 10) / 20 == Approx(0.5).margin(0.02));
  CHECK((median(memory) - 100) / 200 == Approx(0.5).margin(0.02));
  CHECK(std::ranges::min(up) >= 1);
  CHECK(std::ranges::max(up) <= 100.0001);
}

TEST_CASE("classes come in their shares and keep to their ranges") {
  const DeviceModels models = models_of(
      "[[fleet.class]]\nname = \"slow\"\nshare = 3\ngflops = [1, 2]\n"
      "[[fleet.class]]\nname = \"fast\"\nshare = 1\ngflops = [10, 20]\n");
  std::size_t fast = 0;
  for (const DeviceTraits& one : all_traits(models)) {
    const bool is_fast = models.class_name(one.device_class) == "fast";
    fast += is_fast ? 1 : 0;
    const double low = is_fast ? 10 : 1;
    REQUIRE(one.flops_per_s >= low * 1e9);
    REQUIRE(one.flops_per_s <= 2.0001 * low * 1e9);
  }
  // A quarter; 5 standard errors of a binomial share are 1.5%.
  CHECK(static_cast<double>(fast) / kPopulation == Approx(0.25).margin(0.016));
}

TEST_CASE("a device is what it is for any size of the fleet, and others under another seed") {
  const RunConfig config = config_of("[fleet]\nmix = \"mixed\"\n");
  RunConfig other = config;
  other.seed = 12;
  const auto small = DeviceModels::make(config, "", 10);
  const auto large = DeviceModels::make(config, "", 1000000);
  const auto reseeded = DeviceModels::make(other, "", 10);
  REQUIRE((small.ok() && large.ok() && reseeded.ok()));
  int different = 0;
  for (std::uint64_t i = 0; i < 10; ++i) {
    const ClientId client{i};
    CHECK(small->traits(client).flops_per_s == large->traits(client).flops_per_s);
    different += small->traits(client).flops_per_s != reseeded->traits(client).flops_per_s ? 1 : 0;
  }
  CHECK(different == 10);
}

TEST_CASE("every mix has classes with names, limits and shares of one") {
  const std::map<std::string, std::size_t> mixes = {
      {"phones", 3}, {"raspberry-pi", 4}, {"mixed", 7}};
  for (const auto& [mix, classes] : mixes) {
    INFO(mix);
    const DeviceModels models = models_of("[fleet]\nmix = \"" + mix + "\"\n");
    REQUIRE(models.classes().size() == classes);
    double share = 0;
    for (const DeviceClassConfig& one : models.classes()) {
      share += one.share;
      CHECK(one.up_mbit_s_min > 0);
      CHECK(one.up_mbit_s_min <= one.up_mbit_s_max);
      CHECK(one.down_mbit_s_min <= one.down_mbit_s_max);
      CHECK(one.gflops_min < one.gflops_max);
      CHECK(one.memory_mib_min < one.memory_mib_max);
      CHECK((one.battery_wh > 0) == (one.availability == "nightly"));
    }
    CHECK(share == Approx(1));
    CHECK_FALSE(models.always_online());
  }
}

TEST_CASE("a class of clients that no device is of is refused") {
  CHECK(error_of("[fleet]\nmix = \"phones\"\n[client.class.tablet]\nwidth = 0.5\n") ==
        "client.class.tablet: no device of the fleet is of this class; its classes are high-end, "
        "mid-range, low-end");
  CHECK(error_of("[client.class.tablet]\nwidth = 0.5\n") ==
        "client.class.tablet: the fleet's devices are of no class; [[fleet.class]] or fleet.mix "
        "names theirs");
  CHECK(error_of("[fleet]\nmix = \"phones\"\n[client.class.low-end]\nwidth = 0.5\n") ==
        "(no error)");
  CHECK(error_of("", 0) == "partition.clients: a fleet needs a device");
}

TEST_CASE("a battery drains with work and by itself, and fills on the charger") {
  DeviceTraits traits;
  traits.battery_joules = 36000;
  Battery battery(traits, 1, ClientId{3}, Time{});
  battery.advance(Battery::kChargeTime, true);  // full from anywhere
  CHECK(battery.level() == 1);
  battery.spend(9000);
  CHECK(battery.level() == Approx(0.75));
  battery.advance(Battery::kIdleTime / 4, false);
  CHECK(battery.level() == Approx(0.5));
  battery.advance(Battery::kChargeTime / 10, true);
  CHECK(battery.level() == Approx(0.6));
  battery.spend(1e9);
  CHECK(battery.level() == 0);
}

TEST_CASE("a battery's level at wake-up is drawn by device and hour, some below the reserve") {
  DeviceTraits traits;
  traits.battery_joules = 36000;
  constexpr int kDevices = 10000;
  int low = 0;
  double sum = 0;
  for (std::uint64_t i = 0; i < kDevices; ++i) {
    const double level = Battery(traits, 5, ClientId{i}, Time(std::chrono::hours(3))).level();
    REQUIRE(level >= 0);
    REQUIRE(level <= 1);
    low += level < Battery::kReserve ? 1 : 0;
    sum += level;
  }
  // Uniform in [0.1, 1]: a ninth below 0.2, 0.55 on average.
  CHECK(low / static_cast<double>(kDevices) == Approx(1.0 / 9).margin(0.016));
  CHECK(sum / kDevices == Approx(0.55).margin(0.013));
  const auto at = [&](int minutes) {
    return Battery(traits, 5, ClientId{1}, Time(std::chrono::minutes(minutes))).level();
  };
  CHECK(at(61) == at(119));
  CHECK(at(61) != at(121));
}

TEST_CASE("a device on mains is never empty") {
  Battery battery(DeviceTraits{}, 1, ClientId{3}, Time{});
  battery.spend(1e12);
  battery.advance(std::chrono::hours(1000), false);
  CHECK(battery.level() == 1);
}

}  // namespace covey::simulation
