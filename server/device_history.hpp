#pragma once

#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace covey::server {

/// What is remembered of one device. 36 bytes: there may be a million of them.
struct DeviceRecord {
  /// Mean training loss of its last accepted update; not a number: none is known.
  float train_loss = std::numeric_limits<float>::quiet_NaN();
  /// From its last assignment to the acceptance of its update, or so long as it was waited for in
  /// vain; 0: unknown.
  float duration_s = 0;
  std::uint32_t num_examples = 0;    ///< of its last accepted update, at most 2^32 - 1
  std::uint32_t participations = 0;  ///< committed rounds that counted an update of its
  std::uint32_t last_round = 0;      ///< the last of these; 0: none is known
  std::uint32_t last_tried = 0;      ///< round of the last task that it ended or missed; 0: none
  std::uint32_t rounds_seen = 0;     ///< rounds up to `last_seen` in which it was there
  std::uint32_t last_seen = 0;       ///< a round; 0: never
  bool here = false;                 ///< and ever since `last_seen`
  std::uint8_t misses = 0;           ///< tasks in a row that brought no update, at most 255

  bool tried() const { return last_tried > 0; }
  bool has_loss() const { return train_loss == train_loss; }
  /// What a figure of a device that keeps its tasks is worth of this one: half of it for every task
  /// missed in a row. So nobody is asked for ever who never answers, and who was late once is asked
  /// again.
  double discounted(double figure) const;
  /// |B| sqrt(mean of squared losses) over its examples B (Lai et al. 2021, section 4.2). Devices
  /// tell the mean loss, so this is that figure's lower bound: a mean is at most the root mean
  /// square.
  double statistical_utility() const;
};
static_assert(sizeof(DeviceRecord) == 36);

/// What a coordinator remembers of the devices it has seen, for policies and limits of selection. A
/// round here is one that was tried: seen in it, counted in it. How often a device took part, and
/// when it last did, outlive the server (Past); all else begins anew. O(1) an event, memory
/// O(devices seen). One thread at a time.
class DeviceHistory {
 public:
  struct Limits {
    std::uint32_t max_participations = 0;  ///< 0: any
    std::uint32_t min_rounds_between = 0;
    bool any() const { return max_participations > 0 || min_rounds_between > 0; }
  };
  /// Whether a device may be drawn for a round.
  enum class Standing : std::uint8_t {
    kFree,
    kResting,    ///< took part in one of the last min_rounds_between rounds
    kExhausted,  ///< took part as often as it may
  };

  /// Of before the server started, as in RunState.
  struct Past {
    std::map<ClientId, std::uint32_t> participations = {};
    std::map<ClientId, RoundNumber> last_rounds = {};
    RoundNumber committed{};  ///< the last round so far
  };

  explicit DeviceHistory(Limits limits) : DeviceHistory(limits, Past()) {}
  DeviceHistory(Limits limits, const Past& past);

  // ---- what happens
  /// It could work: it is connected and eligible, from this round on.
  void arrived(ClientId client, RoundNumber round);
  /// It is not any more.
  void left(ClientId client, RoundNumber round);
  /// An update of its was accepted in this round, so long after its assignment.
  void reported(ClientId client, RoundNumber round, const Report& report, Duration took);
  /// It had a task for so long, and that ended without an update which counts: it declined, its
  /// update was rejected, or the round ended without it.
  void missed(ClientId client, RoundNumber round, Duration waited);
  /// A round with an update of its was committed.
  void participated(ClientId client, RoundNumber round);
  /// From here on the round to come is this one. Called once a round.
  void begin_round(RoundNumber round);

  // ---- what is known
  const DeviceRecord* find(ClientId client) const;
  /// Rounds up to and with this one in which it could work.
  std::uint32_t rounds_available(ClientId client, RoundNumber round) const;
  Standing standing(ClientId client, RoundNumber round) const;
  /// Rounds from `round` on until a resting device may be drawn again.
  std::uint32_t rounds_to_rest(ClientId client, RoundNumber round) const;
  /// Devices that may not be drawn for the round to come.
  std::size_t barred() const { return exhausted_ + resting_; }
  /// Of these, who may never be drawn again.
  std::size_t exhausted() const { return exhausted_; }
  std::size_t devices() const { return records_.size(); }
  const Limits& limits() const { return limits_; }

 private:
  bool exhausted(const DeviceRecord& record) const;
  void seen_until(DeviceRecord& record, std::uint32_t round);

  const Limits limits_;
  std::unordered_map<ClientId, DeviceRecord> records_;
  std::size_t exhausted_ = 0;
  std::size_t resting_ = 0;
  std::deque<std::pair<std::uint32_t, std::size_t>> rests_;  ///< (round, who has rested since)
};

}  // namespace covey::server
