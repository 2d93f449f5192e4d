#pragma once

#include <covey/bytes.hpp>
#include <covey/client/trainer.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

/// What a device has to remember to go on where it was: as values, handed from a Participant to
/// whatever keeps them (spool.hpp) and to the Participant of a later process.
namespace covey::client {

/// The residual before the update of the round accepted last: that round trained again, for a
/// server that lost it, starts from this.
struct EarlierResidual {
  RoundNumber round{};
  SharedBytes bytes;  ///< empty: there was none
};

/// What a device has to remember while its host has forgotten it (Participant::idle_until).
struct ParticipantMemory {
  std::uint32_t draws = 0;      ///< of jitter taken so far
  std::uint8_t violations = 0;  ///< connections broken for a bad message since the last orderly end
  std::uint8_t declines = 0;    ///< tasks given up since the last accepted report
  /// R^d in fp32: what compression lost of its updates so far (error feedback); empty: nothing.
  SharedBytes residual = {};
  RunId residual_run{};  ///< the run it belongs to
  std::shared_ptr<const EarlierResidual> earlier = nullptr;
};

/// Nobody stays away for longer, whatever a server says or a clock shows: a mistake there must not
/// lose the fleet.
inline constexpr Duration kLongestAbsence = std::chrono::hours(24 * 7);

using RoundOfRun = std::pair<RunId, RoundNumber>;

/// Runs in which a device remembers that it revealed shares. None is ever forgotten: a device that
/// has as many takes part in no other run's sums against a malicious server.
inline constexpr std::size_t kMostRevealedRuns = 64;
/// Sums that a device remembers having made keys for, and so the most attempts at one round.
inline constexpr std::size_t kMostKeyedSums = 64;

struct SavedModel {
  Digest digest;
  SharedBytes bytes;
};

/// The assignment at hand and how far its work came.
struct SavedTask {
  Assignment assignment;
  std::optional<Time> report_by;         ///< the round's deadline, if one is known
  std::optional<TrainedUpdate> trained;  ///< nothing: the training begins again
  Duration train_time{};
  /// Trainings begun whose end no process saw: what ends the process again and again is given up.
  std::uint8_t starts = 0;
  bool reported = false;  ///< the server may have counted it: a verdict is owed
  bool decided = false;   ///< accepted or rejected
};

/// A blob that is under way. To be saved: how it is named, the bytes come as AppendDownload.
struct SavedDownload {
  Digest blob;
  std::uint64_t size = 0;
  SharedBytes held;  ///< its first bytes
};

/// A piece of a blob that is being downloaded, behind those before it; 0 begins anew.
struct AppendDownload {
  Digest blob;
  std::uint64_t size = 0;  ///< of the whole blob
  std::uint64_t offset = 0;
  SharedBytes bytes;
};

struct SavedWork {
  ParticipantMemory memory;
  std::optional<RoundOfRun> last_accepted;
  /// Of each run with a malicious server the last round in a sum of which it revealed shares.
  std::vector<RoundOfRun> revealed;
  std::vector<AggregationRound> keyed;  ///< the last sums that it made keys for, oldest first
  /// The last round of which it sent an update with noise of its own: there is no second draw.
  std::optional<RoundOfRun> released;
  std::optional<Time> not_before;       ///< the server asked it to stay away until then
  std::optional<SavedModel> model;
  std::optional<SavedTask> task;
  std::optional<SavedDownload> download;
};

}  // namespace covey::client
