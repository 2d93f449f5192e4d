#pragma once

#include <chrono>
#include <covey/client/local_data.hpp>
#include <covey/transport/event_loop.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/daemon/covey_client/options.hpp"
#include "client/daemon/covey_client/service.hpp"
#include "client/daemon/device.hpp"

namespace covey::client {

/// What came of it, for the last line of output.
struct Outcome {
  std::optional<Finished> finished;  ///< nothing: it never began
  std::uint32_t rounds_accepted = 0;
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  TransferCount transfers;
  double wall_s = 0;
};

/// One device, from start to end of the process: reads its conditions, tells the service manager
/// that it is alive, and begins anew where it is to keep running. Loop thread only.
class Program {
 public:
  /// What the program works with; all outlive it.
  struct Parts {
    const ProgramOptions& options;
    LocalData& data;
    const ServiceManager& manager;
    Log log;
    /// The device's conditions now; nothing: they could not change.
    std::function<DeviceReadings()> read_conditions;
  };

  /// Error: the kit, the certificate or the state directory is of no use.
  static Result<std::unique_ptr<Program>> make(Parts parts);

  /// Until the run is over or a signal says so.
  Outcome run();

 private:
  explicit Program(Parts parts);

  Result<void> begin();
  void stop();
  void on_accepted();
  void on_finished(const Finished& finished);
  void look_around();
  Duration look_interval() const;
  void feed_watchdog();
  bool training_moves(Time now);
  void tell_status();
  void take_stock();
  void log(LogLevel level, std::string_view text) const { parts_.log(level, text); }

  Parts parts_;
  Outcome outcome_;
  bool stopping_ = false;
  std::string status_told_;
  std::uint64_t examples_told_ = 0;
  bool waited_ = false;  ///< said once that it is in the server's pool
  std::optional<std::uint32_t> steps_seen_;
  Time steps_moved_at_{};

  transport::EventLoop loop_;
  transport::Timer look_timer_;
  transport::Timer watchdog_timer_;
  transport::Timer again_timer_;
  std::unique_ptr<Device> device_;
};

}  // namespace covey::client
