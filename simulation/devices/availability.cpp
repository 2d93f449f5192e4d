#include "availability.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

#include "device_streams.hpp"

namespace covey::simulation {
namespace {

// ---- nightly ----
// Published: a device takes part in federated learning when it is idle, charging and on an
// unmetered network, and of one country's devices four times as many do at night as by day
// (Bonawitz et al. 2019, "Towards federated learning at scale: system design", sections 2 and 9, a
// population centred on the United States). The rest is our choice, made so that this factor comes
// out.

// Time zones of the United States as hours of coordinated time, and the share of its people that
// live there (Eastern, Central, Mountain, Pacific; rounded from the Census). Without daylight
// saving.
constexpr std::array<double, 4> kZoneHours = {-5, -6, -7, -8};
constexpr std::array<double, 4> kZoneShares = {0.47, 0.29, 0.07, 0.17};

// A device is usually put on its charger at 23 h; devices differ by 1.3 h, and one device's nights
// by 0.75 h: together sqrt(1.3^2 + 0.75^2) = 1.5 h. It stays there for 7 h, with 1.2 h and 0.9
// h: 1.5 h.
constexpr double kBedtime = 23, kBedtimeOfDevices = 1.3, kBedtimeOfNights = 0.75;
constexpr double kNightHours = 7, kNightOfDevices = 1.2, kNightOfNights = 0.9;
// Two standard deviations; nights so bounded never overlap, and lie in [20, 36.5] of their day.
constexpr double kEarliest = 20, kLatest = 26, kShortest = 3.5, kLongest = 10.5;
constexpr Duration kNightsBegin = hours(kEarliest), kNightsEnd = hours(kLatest + kLongest);
constexpr double kMissedNights = 0.1;

// What a device does in an hour that it does not spend on its night charger. Waking hours begin at
// 7 and end at 23 by its own clock, hours at a minute of its own.
constexpr std::int64_t kWakesAt = 7, kSleepsAt = 23;
constexpr double kChargesByDay = 0.2;  // at a desk, in a car: on its charger and unmetered
constexpr double kHomeByDay = 0.2;     // on its battery, unmetered
constexpr double kOutByDay = 0.3;      // on its battery, on a metered network; else out of reach
constexpr double kOnlineAsleep = 0.5;  // beside its charger: on its battery, unmetered

struct Habits {
  Duration zone{};    ///< local time less coordinated time
  Duration minute{};  ///< into the clock's hour, at which its hours begin
  double bedtime = 0;
  double night_hours = 0;
};

Habits draw_habits(std::uint64_t seed, ClientId client) {
  RandomStream random = device_stream(seed, client, DeviceDraw::kHabits);
  Habits habits;
  double drawn = random.uniform();
  std::size_t zone = 0;
  while (zone + 1 < kZoneShares.size() && drawn >= kZoneShares[zone]) drawn -= kZoneShares[zone++];
  habits.zone = hours(kZoneHours[zone]);
  habits.minute = hours(random.uniform());
  habits.bedtime = random.normal(kBedtime, kBedtimeOfDevices);
  habits.night_hours = random.normal(kNightHours, kNightOfDevices);
  return habits;
}

struct Night {
  bool missed = false;
  Time begins{}, ends{};  ///< local
};

Night draw_night(std::uint64_t seed, ClientId client, const Habits& habits, std::int64_t day) {
  RandomStream random = device_stream(seed, client, DeviceDraw::kNight, day);
  Night night;
  night.missed = random.uniform() < kMissedNights;
  const double begins =
      std::clamp(habits.bedtime + random.normal(0, kBedtimeOfNights), kEarliest, kLatest);
  const double lasts =
      std::clamp(habits.night_hours + random.normal(0, kNightOfNights), kShortest, kLongest);
  night.begins = Time(day * kDay + hours(begins));
  night.ends = night.begins + hours(lasts);
  return night;
}

constexpr Surroundings kOnCharger{true, true, false};
constexpr Surroundings kAtHome{true, false, false};
constexpr Surroundings kOutside{true, false, true};
constexpr Surroundings kOutOfReach{false, false, false};

Surroundings waking_hour(std::uint64_t seed, ClientId client, Time local, const Habits& habits) {
  const std::int64_t hour =
      floor_divide((local - habits.minute).time_since_epoch().count(), kHour.count());
  RandomStream random = device_stream(seed, client, DeviceDraw::kWakingHour, hour);
  const double drawn = random.uniform();
  const std::int64_t of_day = hour - 24 * floor_divide(hour, 24);
  Surroundings now = kOutOfReach;
  if (of_day >= kWakesAt && of_day < kSleepsAt) {
    if (drawn < kChargesByDay) {
      now = kOnCharger;
    } else if (drawn < kChargesByDay + kHomeByDay) {
      now = kAtHome;
    } else if (drawn < kChargesByDay + kHomeByDay + kOutByDay) {
      now = kOutside;
    }
  } else if (drawn < kOnlineAsleep) {
    now = kAtHome;
  }
  now.until = Time((hour + 1) * kHour) + habits.minute;
  return now;
}

Surroundings nightly(std::uint64_t seed, ClientId client, Time clock) {
  const Habits habits = draw_habits(seed, client);
  const Time local = clock + habits.zone;
  Surroundings now = waking_hour(seed, client, local, habits);
  const std::int64_t today = floor_divide(local.time_since_epoch().count(), kDay.count());
  for (const std::int64_t day : {today - 1, today}) {
    const Time midnight(day * kDay);
    if (local >= midnight + kNightsEnd || now.until <= midnight + kNightsBegin) continue;
    const Night night = draw_night(seed, client, habits, day);
    if (night.missed || local >= night.ends) continue;
    if (local >= night.begins) {
      now = kOnCharger;
      now.until = night.ends;
      break;
    }
    now.until = std::min(now.until, night.begins);
  }
  now.until -= habits.zone;
  return now;
}

// ---- flaky ----
// A board at home that is always on, but for a pulled plug, a crash or its network's failures. Our
// choice: nine hours up on average, then away for at least three minutes and fifteen on average.
// Times up are exponential, so a day's draws can begin anew without a trace in them.
constexpr double kMeanUpHours = 9;
constexpr double kShortestOutageHours = 3.0 / 60, kMeanOutageHours = 15.0 / 60;

Surroundings flaky(std::uint64_t seed, ClientId client, Time clock) {
  // Days begin at another time for every device, so that no two devices' draws meet at midnight.
  const Duration phase = hours(24 * device_stream(seed, client, DeviceDraw::kHabits).uniform());
  const Time shifted = clock + phase;
  const std::int64_t day = floor_divide(shifted.time_since_epoch().count(), kDay.count());
  const Time ends = Time((day + 1) * kDay);
  RandomStream random = device_stream(seed, client, DeviceDraw::kOutages, day);
  Surroundings now{true, true, false};
  Time at(day * kDay);
  for (bool online = true;; online = !online) {
    const double lasts = online ? kMeanUpHours * random.exponential()
                                : kShortestOutageHours + (kMeanOutageHours - kShortestOutageHours) *
                                                             random.exponential();
    at = std::min(at + hours(lasts), ends);
    if (shifted >= at) continue;
    now.online = online;
    now.charging = online;  // an outage of power, as far as anybody can tell
    now.until = at - phase;
    return now;
  }
}

}  // namespace

Result<Availability> availability_of(std::string_view name) {
  if (name == "always") return Availability::kAlways;
  if (name == "nightly") return Availability::kNightly;
  if (name == "flaky") return Availability::kFlaky;
  return invalid_argument("fleet.availability: \"" + std::string(name) +
                          "\" is not one of always, nightly, flaky");
}

Surroundings surroundings_by_model(Availability model, std::uint64_t seed, ClientId client,
                                   Time clock) {
  switch (model) {
    case Availability::kNightly:
      return nightly(seed, client, clock);
    case Availability::kFlaky:
      return flaky(seed, client, clock);
    case Availability::kAlways:
      break;
  }
  return {};
}

}  // namespace covey::simulation
