#include "simulation/devices/availability.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <covey/run_config.hpp>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <tuple>

#include "simulation/devices/device_models.hpp"
#include "simulation/devices/fleet_day.hpp"

namespace covey::simulation {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

constexpr std::array kModels = {Availability::kAlways, Availability::kNightly,
                                Availability::kFlaky};

auto state_of(const Surroundings& s) { return std::tuple(s.online, s.charging, s.metered); }

DeviceModels models_of(const std::string& fleet) {
  const auto config = parse_run_text("[run]\nseed = 3\n" + fleet, "run.toml", {});
  if (!config.ok()) FAIL(config.error().message);
  auto models = DeviceModels::make(*config, "", 10);
  if (!models.ok()) FAIL(models.error().message);
  return std::move(models).value();
}

/// Shares of the devices, at one moment.
struct Shares {
  double online = 0, eligible = 0, metered = 0;
};

Shares shares_at(Availability model, Time clock) {
  constexpr int kDevices = 4000;
  Shares shares;
  for (std::uint64_t i = 0; i < kDevices; ++i) {
    const Surroundings now = surroundings_by_model(model, 17, ClientId{i}, clock);
    shares.online += now.online ? 1.0 / kDevices : 0;
    shares.metered += now.online && now.metered ? 1.0 / kDevices : 0;
    shares.eligible += now.online && now.charging && !now.metered ? 1.0 / kDevices : 0;
  }
  return shares;
}

}  // namespace

TEST_CASE("walking from change to change sees what looking every minute sees") {
  for (const std::uint64_t seed : {1ull, 2ull, 3ull}) {
    for (const Availability model : kModels) {
      INFO("seed " << seed << ", model " << static_cast<int>(model));
      for (std::uint64_t i = 0; i < 8; ++i) {
        const ClientId client{i * 1000003};
        Surroundings walked = surroundings_by_model(model, seed, client, Time{});
        for (Time at{}; at < Time(hours(24 * 9)); at += minutes(1)) {
          const Surroundings seen = surroundings_by_model(model, seed, client, at);
          while (walked.until <= at) {
            const Time next = walked.until;
            walked = surroundings_by_model(model, seed, client, next);
            REQUIRE(walked.until > next);
          }
          REQUIRE(seen.until > at);
          REQUIRE(state_of(walked) == state_of(seen));
        }
      }
    }
  }
}

TEST_CASE("the last microsecond before a change is as before") {
  for (const Availability model : {Availability::kNightly, Availability::kFlaky}) {
    Time at(hours(5));
    for (int i = 0; i < 200; ++i) {
      const Surroundings now = surroundings_by_model(model, 4, ClientId{9}, at);
      const Time last = now.until - Duration(1);
      REQUIRE(state_of(surroundings_by_model(model, 4, ClientId{9}, last)) == state_of(now));
      at = now.until;
    }
  }
}

TEST_CASE("four times as many phones could train at night as by day") {
  double lowest = 1, highest = 0;
  for (int half_hour = 48; half_hour < 96; ++half_hour) {
    const Shares shares = shares_at(Availability::kNightly, Time(minutes(30 * half_hour)));
    lowest = std::min(lowest, shares.eligible);
    highest = std::max(highest, shares.eligible);
  }
  // Bonawitz et al. 2019, section 9: "a 4x difference"; a share of 4000 devices has a standard
  // error of at most 0.8%.
  CHECK(highest / lowest == Approx(4).margin(0.8));
  CHECK(highest > 0.7);
}

TEST_CASE("by day phones are on a metered network or a battery too, at night hardly any") {
  // 19 h coordinated time is between 11 and 14 h for the owners, 9 h between 1 and 4 h.
  const Shares day = shares_at(Availability::kNightly, Time(hours(24 + 19)));
  const Shares night = shares_at(Availability::kNightly, Time(hours(24 + 9)));
  CHECK(day.metered == Approx(0.3).margin(0.04));
  CHECK(day.online > day.metered + day.eligible + 0.1);  // on battery, unmetered
  CHECK(day.online < 0.8);
  CHECK(night.metered < 0.02);
  CHECK(night.eligible > 0.7);
}

TEST_CASE(
    "nights begin around 23 h by the device's own time, last about 7 h, and some are missed") {
  // A night is a charge of more than three hours: hours by day may follow each other, rarely so
  // many.
  double starts = 0, lengths = 0;
  int nights = 0;
  constexpr int kDevices = 400, kDays = 5;
  for (std::uint64_t i = 0; i < kDevices; ++i) {
    Time at(hours(24));
    while (at < Time(hours(24 * (1 + kDays)))) {
      const Surroundings now = surroundings_by_model(Availability::kNightly, 8, ClientId{i}, at);
      const double lasts = seconds(now.until - at) / 3600;
      if (now.charging && lasts > 3) {
        ++nights;
        lengths += lasts;
        // Hours behind noon, coordinated time.
        const double hour = seconds(at.time_since_epoch()) / 3600 - 12;
        starts += hour - 24 * std::floor(hour / 24);
      }
      at = now.until;
    }
  }
  // The mean zone of the United States is 0.47 * 5 + 0.29 * 6 + 0.07 * 7 + 0.17 * 8 = 5.94 h
  // behind: 23 h there is 4.94 h here, 16.94 h behind noon.
  CHECK(starts / nights == Approx(16.94).margin(0.25));
  CHECK(lengths / nights == Approx(7).margin(0.25));
  CHECK(nights / static_cast<double>(kDevices * kDays) == Approx(0.9).margin(0.04));
}

TEST_CASE("flaky devices are away a quarter of an hour in nine") {
  double away = 0, total = 0;
  int outages = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    Time at{};
    while (at < Time(hours(24 * 10))) {
      const Surroundings now = surroundings_by_model(Availability::kFlaky, 21, ClientId{i}, at);
      const double lasts = seconds(now.until - at) / 3600;
      total += lasts;
      if (!now.online) {
        away += lasts;
        ++outages;
      } else {
        REQUIRE((now.charging && !now.metered));
      }
      at = now.until;
    }
  }
  // 0.25 / 9.25 of the time; some 7800 outages of a standard deviation of 12 minutes.
  CHECK(away / total == Approx(0.25 / 9.25).margin(0.0025));
  CHECK(away / outages == Approx(0.25).margin(0.02));
}

TEST_CASE("the run's first hour is fleet.start-hour") {
  const DeviceModels midnight = models_of("[fleet]\navailability = \"nightly\"\n");
  const DeviceModels later = models_of("[fleet]\navailability = \"nightly\"\nstart-hour = 7.5\n");
  for (std::uint64_t i = 0; i < 50; ++i) {
    const Time at(minutes(37 * static_cast<int>(i)));
    const Surroundings now = later.surroundings(ClientId{i}, at);
    const Surroundings same = midnight.surroundings(ClientId{i}, at + minutes(450));
    CHECK(state_of(now) == state_of(same));
    CHECK(now.until + minutes(450) == same.until);
  }
}

TEST_CASE("devices that are always there stay so for ever") {
  const DeviceModels models = models_of("");
  const Surroundings now = models.surroundings(ClientId{1}, Time(hours(3)));
  CHECK(state_of(now) == std::tuple(true, true, false));
  CHECK(now.until == Time::max());
}

TEST_CASE("a fleet's day counts who is there, and its rows are some of them") {
  const DeviceModels models = models_of("[fleet]\nmix = \"mixed\"\n");
  FleetDayOptions options;
  options.length = hours(30);
  options.step = minutes(30);
  options.population = 1000;
  options.devices = 100;
  options.rows = 10;
  const FleetDay day = observe_day(models, options);
  REQUIRE(day.online.size() == 61);
  REQUIRE(day.rows.size() == 10);
  for (std::size_t i = 0; i < day.online.size(); ++i) {
    const Time at(static_cast<std::int64_t>(i) * minutes(30));
    int there = 0;
    for (std::uint64_t device = 0; device < 1000; device += 10) {
      there += models.surroundings(ClientId{device}, at).online ? 1 : 0;
    }
    REQUIRE(day.online[i] == Approx(there / 100.0));
    REQUIRE(day.charging[i] <= day.online[i]);
    for (const FleetDay::Row& row : day.rows) {
      const Surroundings now = models.surroundings(row.client, at);
      const bool drawn = std::ranges::any_of(row.online, [&](const FleetDay::Stretch& stretch) {
        return stretch.begins <= at && at < stretch.ends;
      });
      if (at < Time(options.length)) REQUIRE(drawn == now.online);
    }
  }
  CHECK(std::ranges::is_sorted(day.rows, {}, &FleetDay::Row::device_class));
}

TEST_CASE("a fleet's day is drawn as a picture, and a wrong name or folder is refused") {
  const DeviceModels models = models_of("[fleet]\navailability = \"nightly\"\n");
  FleetDayOptions options;
  options.population = options.devices = 20;
  const FleetDay day = observe_day(models, options);
  const auto folder = std::filesystem::temp_directory_path() /
                      ("covey-fleet-day-" + std::to_string(std::random_device{}()));
  std::filesystem::create_directories(folder);
  for (const auto& [name, beginning] :
       {std::pair("day.svg", std::string("<?xml")), std::pair("day.png", std::string("\x89PNG"))}) {
    const auto path = folder / name;
    const auto written = write_fleet_picture(day, models, "a day", 6.5, path.string());
    if (!written.ok()) FAIL(written.error().message);
    std::ifstream file(path, std::ios::binary);
    std::string start(beginning.size(), ' ');
    file.read(start.data(), static_cast<std::streamsize>(start.size()));
    CHECK(start == beginning);
    CHECK(std::filesystem::file_size(path) > 5000);
  }
  CHECK_FALSE(write_fleet_picture(day, models, "a day", 0, (folder / "day.gif").string()).ok());
  CHECK_FALSE(write_fleet_picture(day, models, "a day", 0, (folder / "no/day.png").string()).ok());
  std::filesystem::remove_all(folder);
}

TEST_CASE("a look at a device's surroundings takes microseconds at most") {
  const DeviceModels models = models_of("[fleet]\nmix = \"mixed\"\n");
  constexpr int kLooks = 200000;
  const auto start = std::chrono::steady_clock::now();
  int online = 0;
  for (int i = 0; i < kLooks; ++i) {
    const auto number = static_cast<std::uint64_t>(i);
    online += models.surroundings(ClientId{number % 1000}, Time(minutes(i))).online ? 1 : 0;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(online > 0);
  CHECK(took.count() / kLooks < 20e-6);  // generous: machines under test are busy and instrumented
}

}  // namespace covey::simulation
