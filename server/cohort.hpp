#pragma once

#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/metrics.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace covey::server {

enum class MemberState : std::uint8_t {
  kWorking,    ///< downloads, trains, or has reported and was interrupted
  kQueued,     ///< reported, waits for an upload slot
  kOpening,    ///< has a slot; asked how many bytes are held already
  kUploading,  ///< has a slot and a grant
  kJudging,    ///< all bytes are here
  kAccepted,
  kRejected,
  kLeft,  ///< declined, or asked for other work after the round had closed
  kMissed,  ///< not there for a step of the secure sum
};

/// One selected device of the round.
struct Member {
  ClientId client{};
  MemberState state = MemberState::kWorking;
  Time last_heard{};
  std::optional<ConnectionId> connection;             ///< live, and the device holds the task on it
  std::optional<Report> report;                       ///< the latest
  /// On which connection it was last sent which step of the secure sum.
  std::optional<std::pair<ConnectionId, std::uint8_t>> told = std::nullopt;
  /// Its update is (or is about to be) in the secure sum and stays there; nothing else comes of it.
  bool left_sum = false;
  RejectReason rejection = RejectReason::kMalformed;  ///< kRejected only
  std::string rejection_text;

  bool undecided() const { return state < MemberState::kAccepted; }
  bool accepted() const { return state == MemberState::kAccepted; }
};

/// The selected devices of one round and how far each is: O(1) memory per member, no payloads.
/// One thread at a time.
class Cohort {
 public:
  /// `clients`: sorted.
  void begin(RoundNumber round, const std::vector<ClientId>& clients, Time now);
  /// Nobody is selected in any round.
  void clear();

  RoundNumber round() const { return round_; }
  Member* find(ClientId client);
  std::span<Member> members() { return members_; }
  std::span<const Member> members() const { return members_; }

  /// Ends an undecided member's part in the round: kAccepted, kRejected, kLeft or kMissed.
  void decide(Member& member, MemberState outcome);

  std::size_t size() const { return members_.size(); }
  std::size_t accepted() const { return accepted_; }
  std::size_t rejected() const { return rejected_; }
  /// Declined the task, or asked for other work.
  std::size_t left() const { return left_; }
  std::size_t missed() const { return missed_; }
  std::size_t undecided() const { return size() - accepted_ - rejected_ - left_ - missed_; }
  /// No undecided member was heard since `moment`, and none waits for the server. O(size).
  bool all_silent_since(Time moment) const;
  /// Fills in what the accepted reports say, summed in order of clients: equal for any order of
  /// arrival. O(size).
  void tally(RoundMetrics& metrics) const;

 private:
  RoundNumber round_{};
  std::vector<Member> members_;  // sorted by client
  std::size_t accepted_ = 0;
  std::size_t rejected_ = 0;
  std::size_t left_ = 0;
  std::size_t missed_ = 0;
};

}  // namespace covey::server
