#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/client/trainer.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <covey/time.hpp>

/// The device's side of the protocol as a state machine: events in, actions out, time is an input.
namespace covey::client {

// ---- events
struct Connected {};
struct ConnectionLost {
  std::string reason;
};
struct Received {
  ServerMessage message;
};
struct TimerFired {};
struct TrainingProgress {
  std::uint32_t steps_done = 0;
  std::uint32_t steps_total = 0;
};
struct TrainingFinished {
  RunId run{};
  RoundNumber round{};
  Result<TrainedUpdate> result;
  Duration took{};
};
struct ConditionsChanged {
  DeviceConditions conditions;
};
/// Leave politely: the task at hand is declined, the connection closed.
struct StopRequested {};
using Event = std::variant<Connected, ConnectionLost, Received, TimerFired, TrainingProgress,
                           TrainingFinished, ConditionsChanged, StopRequested>;

// ---- actions
struct Connect {};
struct Disconnect {};
struct Send {
  ClientMessage message;
};
/// One timer; a new one replaces it.
struct SetTimer {
  Time at{};
};
struct StartTraining {
  TrainingTask task;
};
struct CancelTraining {};
/// A fact for the log, in words: "round 12 accepted".
struct Note {
  std::string text;
};
/// Nothing will happen any more. `ok`: the run ended or a stop was asked for; else the server refused us.
struct Finished {
  bool ok = true;
  std::string reason;
};
using Action = std::variant<Connect, Disconnect, Send, SetTimer, StartTraining, CancelTraining, Note, Finished>;
using Actions = std::vector<Action>;

struct ParticipantOptions {
  ClientId client{};                       ///< from the device's own certificate
  std::uint64_t seed = 0;                  ///< of backoff jitter
  DeviceConditions conditions;
  Duration backoff_min = std::chrono::milliseconds(200);   ///< first wait after a lost connection
  Duration backoff_max = std::chrono::seconds(60);         ///< doubles up to this, with full jitter
  Duration answer_timeout = std::chrono::seconds(30);      ///< silence while an answer is owed
  std::uint32_t request_bytes = 256 * 1024;                ///< of a BlobRequest, at most the server's chunk
};

/// One device. Owns no socket, thread, clock, file or global generator. One thread at a time.
class Participant {
 public:
  explicit Participant(ParticipantOptions options);

  /// First call to make: asks to connect.
  void start(Time now, Actions& actions);
  void handle(Time now, Event event, Actions& actions);

  bool finished() const { return phase_ == Phase::kFinished; }
  /// Rounds in which this device's update was accepted.
  std::uint32_t rounds_accepted() const { return rounds_accepted_; }
  /// What it is doing, in a word: "waiting", "downloading", "training", ...
  std::string_view phase_name() const;

 private:
  enum class Phase : std::uint8_t {
    kDisconnected,  ///< waiting to connect again
    kGreeting,      ///< Hello sent
    kCheckingIn,    ///< CheckIn sent
    kWaiting,       ///< in the server's pool
    kPausing,       ///< told when to come back; connected or not
    kDownloading,
    kTraining,
    kUploading,
    kFinished,
  };
  Phase phase_ = Phase::kDisconnected;
  std::uint32_t rounds_accepted_ = 0;
  ParticipantOptions options_;
};

}  // namespace covey::client
