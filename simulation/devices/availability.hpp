#pragma once

#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <string_view>

#include "device_models.hpp"

namespace covey::simulation {

/// When a device of a class is within reach, by a model. Every function is computed from (seed,
/// client, the hour or day at hand) alone: nothing is remembered, any moment can be asked for
/// first.
enum class Availability : std::uint8_t {
  kAlways,   ///< on mains and unmetered, for ever
  kNightly,  ///< a phone: on its charger at night, otherwise as its owner's day goes
  kFlaky,    ///< on mains; on for hours, away for minutes
};

/// "always", "nightly", "flaky".
Result<Availability> availability_of(std::string_view name);

/// `clock`: since midnight, coordinated time, of the run's first day; `until` on the same clock.
Surroundings surroundings_by_model(Availability model, std::uint64_t seed, ClientId client,
                                   Time clock);

}  // namespace covey::simulation
