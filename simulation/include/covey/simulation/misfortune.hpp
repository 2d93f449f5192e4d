#pragma once

#include <cstdint>

#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/random.hpp>
#include <covey/run_config.hpp>

namespace covey::simulation {

/// In which step of a round a device fails (fleet.dropout, fleet.dropout-at).
enum class LeavesIn : std::uint8_t {
  kNever = 0,
  kTraining = 1,
  kSharing = 2,    ///< told its neighbours' keys, it does not answer
  kMasking = 3,    ///< its shares are out, its masked update never comes: what costs a secure sum most
  kUnmasking = 4,  ///< its update is in the sum, it reveals nothing
};

/// The stream that a device's misfortunes of one round are drawn from. `attempt`: a round that was
/// abandoned and is tried again draws anew; otherwise the same devices would fail for ever.
RandomStream misfortune(std::uint64_t seed, RandomPurpose purpose, RoundNumber round, ClientId client,
                        std::uint64_t attempt);

/// Whether and where this device fails. Where it fails in training, the next draw of the stream
/// misfortune(kDropout) says how far it came.
LeavesIn leaves_in(const RunConfig& config, RoundNumber round, ClientId client, std::uint64_t attempt);

/// Whether this message begins that step: the device leaves without an answer.
bool begins(LeavesIn step, const ServerMessage& message);
/// The round that a message of a secure sum, or an assignment, is of; 0: of none.
RoundNumber round_of(const ServerMessage& message);

}  // namespace covey::simulation
