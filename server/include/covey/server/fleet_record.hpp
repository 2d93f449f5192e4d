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
#include <unordered_map>
#include <unordered_set>
#include <vector>

/// What a server's devices did when, for `covey replay`: fleet.csv in the server's folder, a line
/// an event, "time_s,event,device,round,bytes,seconds,examples,steps,class" with what an event does
/// not have left empty.
namespace covey::server {

enum class FleetEventKind : std::uint8_t {
  kStarted,    ///< the server; nobody is connected
  kConnected,  ///< also beside an older connection of the device, which is then over
  kGone,       ///< it has no connection left
  kCheckedIn,  ///< class: as the device says, where that can be the name of one
  kAssigned,   ///< bytes: of the model
  kReported,   ///< bytes: of the update; seconds: of training, as the device says; examples, steps
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
  std::string device_class = {};
  bool operator==(const FleetEvent&) const = default;
};

/// Writes the events down as a driver sees them: changes of a device's state, not what it repeats,
/// and at most kMostLines of one device from one round's end to the next, so that none can push the
/// others' out. Lines are flushed when a round ends; the last ones may be lost with the process. At
/// most about twice `max_bytes` are kept: the file then becomes fleet.1.csv and a new one begins.
/// One thread at a time.
class FleetRecord {
 public:
  /// A device that connects, is given work and reports takes five; a bad link, several times that.
  static constexpr std::uint32_t kMostLines = 64;

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
  /// What the record says of a device, beside what is true of it.
  struct Device {
    int connections = 0;
    bool shown = false;  ///< the record has it connected
    bool checked_in = false;
    std::string device_class;
    std::optional<RoundNumber> task;
    std::uint64_t assigned_behind = 0;  ///< so many rounds' ends
    bool reported = false;              ///< for the task
    std::uint32_t lines = 0;            ///< behind `counted_behind` rounds' ends
    std::uint64_t counted_behind = 0;
  };
  explicit FleetRecord(Options options) : options_(std::move(options)) {}
  bool write(FleetEvent event, Time now, Device& device);
  void write(FleetEvent event, Time now);
  void show_connection(ClientId client, Device& device, Time now);
  void take_report(ClientId client, Device& device, const Report& report, Time now);
  void end_task(FleetEvent event, Device& device, Time now);
  Result<void> begin_file();
  std::string path() const { return options_.folder + "/fleet.csv"; }

  Options options_;
  std::ofstream file_;
  std::uint64_t bytes_ = 0;
  std::unordered_map<ClientId, Device> devices_;  ///< of this process
  std::unordered_set<ClientId> silenced_;         ///< had more to say than is written down
  std::uint64_t ends_ = 0;                        ///< of rounds
  std::optional<Error> problem_;
};

/// All that is written down in the folder, in order. Error naming file and line.
Result<std::vector<FleetEvent>> read_fleet_record(const std::string& folder);

}  // namespace covey::server
