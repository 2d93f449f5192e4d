#pragma once

#include <chrono>
#include <covey/client/conditions.hpp>
#include <covey/client/local_data.hpp>
#include <covey/client/participant.hpp>
#include <covey/result.hpp>
#include <covey/transport/event_loop.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "client/daemon/log.hpp"
#include "client/daemon/transfer_count.hpp"
#include "server/daemon/kit.hpp"

namespace covey::client {

struct DeviceOptions {
  Kit kit;
  std::string state_directory;                               ///< "": nothing survives the process
  std::uint64_t max_state_bytes = std::uint64_t{256} << 20;  ///< on disk
  std::uint64_t max_memory_bytes =
      0;  ///< of the process; plans that do not fit are declined. 0: any
  Duration max_training_time = std::chrono::hours(24);  ///< of one task, rests not counted; 0: any
  std::string device_class;
  RequiredPrivacy required_privacy;
  /// Says 1 at check-in for any number of examples; always so where secure sums are required.
  bool hide_num_examples = false;
  ConditionRules rules;
  DeviceReadings readings;  ///< at first
  /// Silence after which a connection counts as dead, beyond what the bytes under way need.
  Duration answer_timeout = std::chrono::seconds(30);
  std::uint64_t die_at = 0;             ///< for tests: SuddenDeath in front of this step; 0: never
  std::function<void()> thread_starts;  ///< called first on the thread that trains: its priority
};

/// What the host is told, on the loop's thread. Empty functions are left out.
struct DeviceEvents {
  std::function<void(std::string_view phase)>
      on_phase;                                        ///< Participant::phase_name, when it changes
  std::function<void(RoundNumber round)> on_accepted;  ///< an update was counted
  std::function<void(const Finished&)> on_finished;
};

/// One device in this process: local data, training (on one thread of its own), the owner's
/// conditions, what it keeps on disk, and the connection. What `covey-client` and the C API are
/// made of. Loop thread only.
class Device {
 public:
  /// `data` and `loop` outlive it. Error for a kit or a state directory that cannot be used.
  static Result<std::unique_ptr<Device>> make(transport::EventLoop& loop, DeviceOptions options,
                                              LocalData& data, Log log, DeviceEvents events = {});
  virtual ~Device() = default;

  virtual void start() = 0;
  virtual void stop() = 0;  ///< politely: declines the task at hand, keeps what is on disk
  /// Readings that changed, from the system or the host application.
  virtual void set_readings(const DeviceReadings& readings) = 0;
  /// The local data changed (LocalData::num_examples).
  virtual void data_changed() = 0;
  virtual std::string_view phase() const = 0;
  virtual std::uint32_t rounds_accepted() const = 0;
  virtual std::uint64_t bytes_sent() const = 0;
  virtual std::uint64_t bytes_received() const = 0;
  virtual const TransferCount& transfers() const = 0;
  virtual const std::optional<Finished>& finished() const = 0;
  /// Steps of the training at hand, to see that it moves; nothing when there is none or it rests.
  virtual std::optional<std::uint32_t> training_steps() const = 0;
};

}  // namespace covey::client
