#pragma once

#include <cstdint>
#include <type_traits>

namespace covey {

/// A device, as certified by the run's certificate authority (`URI:covey:client:<number>`); in the
/// simulator the virtual device's number. Never read from a message.
enum class ClientId : std::uint64_t {};

/// A round of a run, from 1. Round 0 is the initial model.
enum class RoundNumber : std::uint32_t {};

/// One live connection of one server process; never reused within the process.
enum class ConnectionId : std::uint64_t {};

/// One run of an experiment, drawn at its start (in the simulator: derived from the seed).
enum class RunId : std::uint64_t {};

template <typename Id>
  requires std::is_enum_v<Id>
constexpr auto value_of(Id id) {
  return static_cast<std::underlying_type_t<Id>>(id);
}

constexpr RoundNumber next(RoundNumber round) {
  return static_cast<RoundNumber>(value_of(round) + 1);
}

}  // namespace covey
