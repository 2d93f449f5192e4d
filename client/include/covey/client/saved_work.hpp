#pragma once

#include <covey/bytes.hpp>
#include <covey/client/trainer.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

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
  std::optional<RoundOfRun> revealed;     ///< in a sum of this round it revealed shares
  std::optional<AggregationRound> keyed;  ///< the last sum that it made keys for
  std::optional<Time> not_before;         ///< the server asked it to stay away until then
  std::optional<SavedModel> model;
  std::optional<SavedTask> task;
  std::optional<SavedDownload> download;
};

}  // namespace covey::client
