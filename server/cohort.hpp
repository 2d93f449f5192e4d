#pragma once

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/metrics.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace covey::server {

enum class MemberState : std::uint8_t {
  kWorking,    ///< downloads, trains, or has reported and was interrupted
  kQueued,     ///< reported, waits for an upload slot
  kOpening,    ///< has a slot; asked how many bytes are held already
  kUploading,  ///< has a slot and a grant
  kReady,      ///< all bytes are here; asynchronous aggregation: waits for the next sum
  kJudging,    ///< all bytes are here and are being judged
  kAccepted,
  kRejected,
  kLeft,    ///< declined, or asked for other work after the round had closed
  kMissed,  ///< not there for a step of the secure sum
};

/// A model as devices are given it, and what they are to do with it. Shared by those who work on
/// it, gone with the last of them.
struct ModelVersion {
  RoundNumber round{};  ///< that the work is for: one behind the model's own
  EncodedModel model;
  Digest sent_digest;  ///< of model.sent
  TrainingPlan plan;
};

/// One selected device of the round; in asynchronous aggregation one that is at work, or was a
/// moment ago.
struct Member {
  ClientId client{};
  RoundNumber round{};  ///< of its assignment
  std::shared_ptr<const ModelVersion> version;
  MemberState state = MemberState::kWorking;
  std::uint32_t variant = 0;  ///< of the plan that it was sent: a number of PlanVariants
  std::uint32_t compressor = 0;  ///< that it was asked for: a number of the plan's
  Time assigned{};
  Time last_heard{};
  std::optional<ConnectionId> connection;  ///< live, and the device holds the task on it
  std::optional<Report> report;            ///< the latest
  /// On which connection it was last sent which step of the secure sum.
  std::optional<std::pair<ConnectionId, std::uint8_t>> told = std::nullopt;
  /// Its update is (or is about to be) in the secure sum and stays there; nothing else comes of it.
  bool left_sum = false;
  bool lost = false;  ///< kMissed only: it was not connected
  // Asynchronous aggregation.
  std::uint64_t ticket = 0;       ///< its assignment's place in the order of all
  Time deadline{};                ///< of its assignment
  std::uint64_t ready_place = 0;  ///< the last in the line of those who wait for a sum; 0: none
  Time away_since{};              ///< while there is no connection
  std::uint64_t sum = 0;          ///< during which it was decided
  std::uint32_t staleness = 0;    ///< of its update, once it is judged
  RejectReason rejection = RejectReason::kMalformed;  ///< kRejected only
  std::string rejection_text;

  bool undecided() const { return state < MemberState::kAccepted; }
  bool accepted() const { return state == MemberState::kAccepted; }
};

/// The selected devices of one round and how far each is, or those of an asynchronous run that are
/// at work: O(1) memory per member, no payloads. Finding one is O(1). One thread at a
/// time.
class Cohort {
 public:
  /// `clients`: sorted. All work on `version`.
  void begin(const std::shared_ptr<const ModelVersion>& version,
             const std::vector<ClientId>& clients, Time now);
  /// One more, which is no member. Pointers to the others stay good.
  Member& add(const std::shared_ptr<const ModelVersion>& version, ClientId client, Time now);
  /// `member` is gone behind it.
  void remove(const Member& member);
  /// Nobody is selected in any round.
  void clear();

  /// Of the last `begin`.
  RoundNumber round() const { return round_; }
  Member* find(ClientId client);
  /// In order of clients.
  auto members() { return std::views::values(members_); }
  auto members() const { return std::views::values(members_); }

  /// Ends an undecided member's part in the round: kAccepted, kRejected, kLeft or kMissed.
  void decide(Member& member, MemberState outcome);

  std::size_t size() const { return members_.size(); }
  std::size_t accepted() const { return accepted_; }
  std::size_t rejected() const { return rejected_; }
  /// Declined the task.
  std::size_t left() const { return left_; }
  std::size_t missed() const { return missed_; }
  std::size_t undecided() const { return size() - accepted_ - rejected_ - left_ - missed_; }
  /// No undecided member was heard since `moment`, and none waits for the server. O(size).
  bool all_silent_since(Time moment) const;
  /// Fills in what became of everyone, and what the accepted reports say, summed in order of
  /// clients: equal for any order of arrival. O(size).
  void tally(RoundMetrics& metrics) const;
  /// Fills in what the reports of these accepted members say, in the order given.
  void tally(RoundMetrics& metrics, std::span<const ClientId> accepted) const;

 private:
  std::size_t& count_of(MemberState outcome);

  RoundNumber round_{};
  std::map<ClientId, Member> members_;
  std::unordered_map<ClientId, Member*> index_;  // every message finds its member: O(1)
  std::size_t accepted_ = 0;
  std::size_t rejected_ = 0;
  std::size_t left_ = 0;
  std::size_t missed_ = 0;
};

}  // namespace covey::server
