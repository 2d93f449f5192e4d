#pragma once

#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/metrics.hpp>
#include <covey/result.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What a server's devices did when, for `covey replay`: fleet.csv in the server's folder, a line
/// an event, "time_s,event,device,round,bytes,seconds,examples,steps" with what an event does not
/// have left empty.
namespace covey::server {

enum class FleetEventKind : std::uint8_t {
  kStarted,  ///< the server; nobody is connected
  kConnected,
  kGone,
  kCheckedIn,
  kAssigned,  ///< bytes: of the model
  kReported,  ///< bytes: of the update; seconds: of training, as the device says; examples, steps
  kDeclined,
  kAccepted,
  kRejected,
  kVoid,       ///< the device's round ended without it
  kCommitted,  ///< the round; seconds: since it began
  kAbandoned,  ///< likewise
};

struct FleetEvent {
  double at_s = 0;  ///< since 1970
  FleetEventKind kind = FleetEventKind::kStarted;
  std::optional<ClientId> client = std::nullopt;
  std::optional<RoundNumber> round = std::nullopt;
  std::optional<std::uint64_t> bytes = std::nullopt;
  std::optional<double> seconds = std::nullopt;
  std::optional<std::uint64_t> examples = std::nullopt;
  std::optional<std::uint32_t> steps = std::nullopt;
  bool operator==(const FleetEvent&) const = default;
};

/// Writes the events down as a driver sees them. Lines are flushed when a round ends; the last ones
/// may be lost with the process. At most about twice `max_bytes` are kept: the file then becomes
/// fleet.1.csv and a new one begins. One thread at a time.
class FleetRecord {
 public:
  struct Options {
    std::string folder;
    Time now{};             ///< of the clock that events come with,
    double unix_now_s = 0;  ///< and what that moment is since 1970
    std::uint64_t max_bytes = 64 << 20;
  };
  /// Goes on behind what is in the folder, without a line that was cut off. Error naming the file.
  static Result<FleetRecord> open(Options options);

  void connected(Time now, ClientId client);
  void gone(Time now, ClientId client);
  void received(Time now, ClientId client, const ClientMessage& message);
  void sent(Time now, ClientId client, const ServerMessage& message);
  void ended(Time now, const RoundMetrics& metrics);

  /// The first reason why something could not be written, if there is one; nothing is written
  /// since.
  const std::optional<Error>& problem() const { return problem_; }

 private:
  explicit FleetRecord(Options options) : options_(std::move(options)) {}
  void write(FleetEvent event, Time now);
  Result<void> begin_file();
  std::string path() const { return options_.folder + "/fleet.csv"; }

  Options options_;
  std::ofstream file_;
  std::uint64_t bytes_ = 0;
  std::optional<Error> problem_;
};

/// All that is written down in the folder, in order. Error naming file and line.
Result<std::vector<FleetEvent>> read_fleet_record(const std::string& folder);

}  // namespace covey::server
