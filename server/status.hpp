#pragma once

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/server/round_coordinator.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace covey::server {

/// What `covey status` shows, as values.
struct Status {
  Phase phase = Phase::kSelection;
  RunId run{};
  RoundNumber round{};  ///< in progress
  RoundNumber committed_round{};
  std::uint32_t num_rounds = 0;
  std::uint32_t attempt = 0;  ///< abandoned attempts of the round in progress
  std::size_t connections = 0;
  std::size_t pool = 0;
  std::size_t start_at = 0;  ///< pool size at which a round starts
  std::size_t selected = 0;
  std::size_t accepted = 0;
  std::size_t rejected = 0;
  std::size_t dropped = 0;  ///< selected, not decided, and not connected now, or declined
  std::size_t uploading = 0;
  std::size_t queued = 0;  ///< reported, waiting for an upload slot
  std::optional<double> accuracy;
  std::optional<double> loss;
  Digest model;
  std::optional<double> deadline_s;  ///< until the round's deadline
  std::string secure_step;           ///< of a secure sum: "advertise", ...; else empty
  std::optional<double> epsilon;     ///< spent so far
  // Asynchronous aggregation. `selected` are then those at work and those whose part in the round in
  // progress has ended.
  std::size_t buffer = 0;  ///< updates that a round takes; 0: rounds are synchronous
  std::size_t at_work = 0;
  std::uint32_t oldest_staleness = 0;  ///< of the models that devices are at work on
};

/// One JSON object, in one line.
std::string to_json(const Status& status);

}  // namespace covey::server
