#include <catch2/catch.hpp>
#include <covey/client/conditions.hpp>
#include <limits>

using namespace covey;
using namespace covey::client;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;

Permissions judge(const ConditionRules& rules, const DeviceReadings& readings,
                  const Permissions& before = {}) {
  return permissions_of(rules, readings, before);
}

DeviceReadings at_minute(std::uint32_t minute) {
  DeviceReadings readings;
  readings.minute_of_day = minute;
  return readings;
}

bool trains_at(const ConditionRules& rules, std::uint32_t minute) {
  return judge(rules, at_minute(minute)).train;
}

}  // namespace

TEST_CASE("hours are read as they are written", "[conditions]") {
  CHECK(parse_hours("22:00-06:30").value() == HoursOfDay{22 * 60, 6 * 60 + 30});
  CHECK(parse_hours("00:00-24:00").value() == HoursOfDay{0, 24 * 60});
  CHECK(parse_hours("18:30-00:00").value() == HoursOfDay{18 * 60 + 30, 24 * 60});
}

TEST_CASE("hours that are none are refused with the part that is wrong", "[conditions]") {
  const auto why = [](const char* text) { return parse_hours(text).error().message; };
  CHECK(why("22:00") ==
        "\"22:00\" names no hours of a day: there is no \"-\" between two times; write "
        "them as 22:00-06:30");
  CHECK(why("24:00-06:00").find("\"24:00\" is no time from 00:00 to 23:59") != std::string::npos);
  CHECK(why("22:00-24:01").find("\"24:01\" is no time from 00:00 to 24:00") != std::string::npos);
  CHECK(why("06:00-06:00").find("they end when they begin") != std::string::npos);
  for (const char* text : {"", "-", "2:00-06:00", "22:60-06:00", "22-06", "aa:bb-cc:dd",
                           "22:00-06:00 ", "22:00--6:00", "+1:00-06:00", "22:00-06:00-07:00"}) {
    INFO(text);
    CHECK_FALSE(parse_hours(text).ok());
  }
}

TEST_CASE("without rules everything is allowed, whatever the device reads", "[conditions]") {
  CHECK(judge({}, {}) == Permissions{});
  DeviceReadings worst;
  worst.charging = false;
  worst.battery = 0;
  worst.metered = true;
  worst.temperature_c = 120;
  worst.load = 50;
  worst.free_memory_bytes = 0;
  worst.free_disk_bytes = 0;
  worst.minute_of_day = 0;
  CHECK(judge({}, worst) == Permissions{});
}

TEST_CASE("hours within a day begin with their first minute and end before their last",
          "[conditions]") {
  ConditionRules rules;
  rules.hours = HoursOfDay{9 * 60, 17 * 60};
  CHECK_FALSE(trains_at(rules, 9 * 60 - 1));
  CHECK(trains_at(rules, 9 * 60));
  CHECK(trains_at(rules, 17 * 60 - 1));
  CHECK_FALSE(trains_at(rules, 17 * 60));
}

TEST_CASE("hours wrap around midnight", "[conditions]") {
  ConditionRules rules;
  rules.hours = HoursOfDay{22 * 60, 6 * 60 + 30};
  CHECK(trains_at(rules, 22 * 60));
  CHECK(trains_at(rules, 24 * 60 - 1));
  CHECK(trains_at(rules, 0));
  CHECK(trains_at(rules, 6 * 60 + 29));
  CHECK_FALSE(trains_at(rules, 6 * 60 + 30));
  CHECK_FALSE(trains_at(rules, 21 * 60 + 59));
  CHECK(judge(rules, at_minute(12 * 60 + 5)).reason ==
        "it is 12:05, the owner allows 22:00 to 06:30");
}

TEST_CASE("what the device cannot tell of power and network is in its favour", "[conditions]") {
  ConditionRules rules;
  rules.require_charging = true;
  rules.min_battery = 0.5;
  rules.require_unmetered = true;
  CHECK(judge(rules, {}) == Permissions{});
}

TEST_CASE("other rules are kept where the device cannot tell", "[conditions]") {
  const auto refused = [](const ConditionRules& rules) {
    const Permissions permissions = judge(rules, {});
    CHECK_FALSE(permissions.train);
    CHECK(permissions.transfer);
    return permissions.reason;
  };
  CHECK(refused({.max_temperature_c = 60}) ==
        "the device cannot read its temperature, the owner allows 60 C");
  CHECK(refused({.max_load = 0.5}) ==
        "the device cannot read its load, the owner allows 0.5 a core");
  CHECK(refused({.min_free_memory_bytes = 64 * kMiB}) ==
        "the device cannot read its free memory, the owner asks for 64.0 MiB");
  CHECK(refused({.min_free_disk_bytes = 8 * kMiB}) ==
        "the device cannot read its free disk, the owner asks for 8.0 MiB");
  CHECK(refused({.hours = HoursOfDay{60, 120}}) ==
        "the device does not know the time, the owner allows 01:00 to 02:00");
  DeviceReadings unplugged;
  unplugged.charging = false;
  const Permissions permissions = judge({.min_battery = 0.3}, unplugged);
  CHECK_FALSE(permissions.train);
  CHECK(permissions.reason ==
        "the device runs on a battery that it cannot read, the owner asks for 30% at least");
}

TEST_CASE("every broken rule is told with its figures", "[conditions]") {
  ConditionRules rules;
  rules.require_charging = true;
  rules.min_battery = 0.4;
  rules.require_unmetered = true;
  rules.max_temperature_c = 60;
  rules.max_load = 0.5;
  rules.min_free_memory_bytes = 100 * kMiB;
  rules.min_free_disk_bytes = 50 * kMiB;
  DeviceReadings readings;
  readings.charging = false;
  readings.battery = 0.12;
  readings.metered = true;
  readings.temperature_c = 71.2;
  readings.load = 0.9;
  readings.free_memory_bytes = 31 * kMiB + kMiB / 2;
  readings.free_disk_bytes = 7 * kMiB;
  const Permissions permissions = judge(rules, readings);
  CHECK_FALSE(permissions.train);
  CHECK_FALSE(permissions.transfer);
  CHECK(permissions.reason ==
        "the device is not charging, the owner asks for that; "
        "the battery is at 12%, the owner asks for 40%; "
        "the network is metered, the owner asks for one that is not; "
        "the device is at 71 C, the owner allows 60; "
        "others keep the device busy with a load of 0.90 a core, the owner allows 0.50; "
        "the device has 31.5 MiB of free memory, the owner asks for 100.0; "
        "the device has 7.0 MiB of free disk, the owner asks for 50.0");
}

TEST_CASE("on a metered network training goes on and transfers wait", "[conditions]") {
  DeviceReadings readings;
  readings.metered = true;
  const Permissions permissions = judge({.require_unmetered = true}, readings);
  CHECK(permissions.train);
  CHECK_FALSE(permissions.transfer);
}

TEST_CASE("an empty battery forbids transfers too, a missing charger does not", "[conditions]") {
  DeviceReadings readings;
  readings.charging = false;
  readings.battery = 0.1;
  CHECK_FALSE(judge({.min_battery = 0.2}, readings).transfer);
  CHECK(judge({.require_charging = true}, readings).transfer);
  readings.charging = true;  // then its charge does not matter
  CHECK(judge({.min_battery = 0.2}, readings) == Permissions{});
}

TEST_CASE("a hot device trains again three degrees below its limit", "[conditions]") {
  const ConditionRules rules{.max_temperature_c = 60};
  const auto at = [&](double celsius, const Permissions& before) {
    DeviceReadings readings;
    readings.temperature_c = celsius;
    return judge(rules, readings, before);
  };
  Permissions now = at(60, {});
  CHECK(now.train);
  now = at(60.5, now);
  CHECK_FALSE(now.train);
  now = at(58, now);
  CHECK_FALSE(now.train);
  CHECK(now.reason == "the device is at 58 C, the owner allows 57");
  now = at(57, now);
  CHECK(now.train);
  CHECK(now.reason.empty());
  CHECK(at(59, now).train);
}

TEST_CASE("battery, load, memory and disk come back with a margin too", "[conditions]") {
  const auto again = [](const ConditionRules& rules, const DeviceReadings& broken,
                        const DeviceReadings& at_limit, const DeviceReadings& beyond) {
    const Permissions before = judge(rules, broken);
    CHECK_FALSE(before.train);
    CHECK(judge(rules, at_limit).train);
    CHECK_FALSE(judge(rules, at_limit, before).train);
    CHECK(judge(rules, beyond, before).train);
  };
  const auto battery = [](double level) {
    DeviceReadings readings;
    readings.charging = false;
    readings.battery = level;
    return readings;
  };
  again({.min_battery = 0.3}, battery(0.29), battery(0.31), battery(0.3501));
  again({.min_battery = 0.98}, battery(0.9), battery(0.99), battery(1.0));
  const auto load = [](double value) {
    DeviceReadings readings;
    readings.load = value;
    return readings;
  };
  again({.max_load = 0.5}, load(0.51), load(0.45), load(0.39));
  again({.max_load = 0.1}, load(0.2), load(0.08), load(0.05));
  const auto memory = [](std::uint64_t bytes) {
    DeviceReadings readings;
    readings.free_memory_bytes = bytes;
    return readings;
  };
  again({.min_free_memory_bytes = 100 * kMiB}, memory(99 * kMiB), memory(105 * kMiB),
        memory(111 * kMiB));
  const auto disk = [](std::uint64_t bytes) {
    DeviceReadings readings;
    readings.free_disk_bytes = bytes;
    return readings;
  };
  again({.min_free_disk_bytes = 100 * kMiB}, disk(99 * kMiB), disk(105 * kMiB), disk(111 * kMiB));
}

TEST_CASE("a margin is asked only of the rule that was broken", "[conditions]") {
  const ConditionRules rules{.max_temperature_c = 60, .hours = HoursOfDay{22 * 60, 6 * 60}};
  DeviceReadings readings = at_minute(21 * 60);
  readings.temperature_c = 59;  // within the limit, though not with a margin
  const Permissions before = judge(rules, readings);
  CHECK_FALSE(before.train);
  readings.minute_of_day = 22 * 60;
  CHECK(judge(rules, readings, before).train);
}

TEST_CASE("a reading that is no number forbids", "[conditions]") {
  DeviceReadings readings;
  readings.temperature_c = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(judge({.max_temperature_c = 60}, readings).train);
}

TEST_CASE("the server is told what was read, and the best where nothing was", "[conditions]") {
  DeviceConditions conditions;
  conditions.num_examples = 7;
  DeviceReadings readings;
  readings.charging = false;
  readings.metered = true;
  readings.temperature_c = 61;
  readings.free_memory_bytes = 12345;
  describe(readings, conditions);
  CHECK_FALSE(conditions.charging);
  CHECK(conditions.metered);
  CHECK(conditions.thermal == ThermalState::kWarm);
  CHECK(conditions.free_memory_bytes == 12345);
  CHECK(conditions.num_examples == 7);
  readings.temperature_c = 80;
  describe(readings, conditions);
  CHECK(conditions.thermal == ThermalState::kHot);
  describe({}, conditions);
  CHECK(conditions.charging);
  CHECK_FALSE(conditions.metered);
  CHECK(conditions.thermal == ThermalState::kNominal);
  CHECK(conditions.free_memory_bytes == 0);
}
