#pragma once

#include <covey/ids.hpp>
#include <covey/proto/codec.hpp>
#include <covey/random.hpp>
#include <covey/run_config.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <optional>

namespace covey::simulation {

enum class Damage : std::uint8_t { kNone, kTruncated, kCorrupted };

/// What becomes of one message on its way.
struct MessageFate {
  bool lost = false;        ///< and its connection with it
  bool twice = false;       ///< it arrives a second time
  bool overtaken = false;   ///< by what is sent next
  bool cut_behind = false;  ///< it arrives, and its connection is lost
  Damage damage = Damage::kNone;
  Duration delay{};  ///< also of everything behind it
  Duration lag{};    ///< further, of an overtaken message and of the second of two
};

/// A device that starts again from nothing.
struct DeviceDeath {
  Duration after{};  ///< the message that it was drawn with
  Duration gone{};   ///< until it is back
  bool noticed =
      false;  ///< the server is told that the connection ended; else it hears nothing more
};

/// Where around a commit the server dies.
enum class CommitCrash : std::uint8_t {
  kNever,
  kBeforeStore,      ///< the round's transaction never begins
  kBehindStore,      ///< the round is durable, the coordinator never hears of it
  kInAnnouncements,  ///< some of those who wait for it are told
};

/// Everything that goes wrong, drawn in the order of events from streams of the faults' own seed:
/// the same seed over the same run repeats every failure. Each kind of fault has a stream of its
/// own. One thread.
class FaultPlan {
 public:
  explicit FaultPlan(const FaultConfig& config);

  /// Whether things go wrong at this moment: `committed` is the last committed round.
  bool strikes(Time now, RoundNumber committed) const;
  /// Whether this plan ever does anything.
  bool enabled() const { return config_.seed != 0; }
  /// Whether messages can change or repeat, which no network does to an authenticated connection.
  bool lies() const;

  MessageFate message();
  /// Cuts the end off the encoded bytes, or flips some of their bits. What has no bytes stays as it
  /// is.
  void damage(Damage kind, proto::Encoded& encoded);
  /// With a message to or from a device: whether the device dies.
  std::optional<DeviceDeath> device_crash();
  /// With an event of the server's: whether it dies while it carries the event's actions out, and
  /// behind which share of them.
  std::optional<double> server_crash();
  CommitCrash commit_crash();
  /// Uniform in [0, 1): how far the announcements came.
  double share_told() { return commits_.uniform(); }
  bool disk_full() { return disk_.uniform() < config_.disk_full; }
  /// Until the server is back.
  Duration server_downtime();
  /// Whether the uploads that a dead server held are still there, as files are.
  bool spool_survives() { return restarts_.uniform() < 0.5; }
  /// Of a device's clock to the true one.
  double clock_rate(ClientId client) const;

 private:
  FaultConfig config_;
  RandomStream messages_, damage_, devices_, servers_, commits_, disk_, restarts_;
};

}  // namespace covey::simulation
