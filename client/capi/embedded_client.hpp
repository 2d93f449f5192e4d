#pragma once

#include <atomic>
#include <covey/client/example_stream.hpp>
#include <covey/result.hpp>
#include <covey/transport/event_loop.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>

#include "client/capi/host_data.hpp"
#include "client/daemon/covey_client/options.hpp"
#include "client/daemon/device.hpp"
#include "client/daemon/linux_conditions.hpp"

namespace covey::client {

/// A device in a host's process: what covey_client.h promises, in C++. Methods marked [any] from
/// any thread, the others on one at a time.
class EmbeddedClient {
 public:
  static Result<std::unique_ptr<EmbeddedClient>> make();
  ~EmbeddedClient();

  Result<void> set_option(std::string_view name, std::string_view value);
  struct Callbacks {
    std::function<void(LogLevel, const std::string&)> log;
    std::function<void(const std::string&)> phase;
    std::function<void(std::uint32_t)> round;
    std::function<void(bool, const std::string&)> finished;
  };
  Callbacks callbacks;

  /// False where the option data names files. [any]
  bool takes_examples();
  Result<void> add(std::span<const float> features, std::int32_t label);               ///< [any]
  Result<void> add_bytes(std::span<const std::uint8_t> features, std::int32_t label);  ///< [any]
  Result<void> set_examples(Result<models::DataSet> examples);                         ///< [any]
  Result<void> clear_examples();                                                       ///< [any]
  /// Changes what the host says of its device. [any]
  void change_readings(const std::function<void(DeviceReadings&)>& change);

  enum class State { kRunning, kFinished, kRefused };
  /// Error: it could not begin.
  Result<State> step(std::uint32_t& next_ms);
  Result<State> run();
  void stop() noexcept;  ///< [any], also in signal handlers

  struct Status {
    std::uint64_t bytes_sent = 0, bytes_received = 0;
    std::uint64_t num_examples = 0;
    std::uint32_t rounds_accepted = 0;
    std::string phase;
    std::optional<Finished> finished;
  };
  Status status();  ///< [any]

  /// Held by whoever is inside a method that is not [any].
  std::atomic<bool> occupied{false};
  /// Whether an option may still be set.
  bool configurable();

 private:
  EmbeddedClient();

  /// The data, opened when they are first needed. [any]
  Result<HostData*> data();
  Result<ExampleStream*> stream();
  Result<void> begin();
  void look_around();
  void examples_came();
  void tell_readings();
  void take_stock();
  void begin_stop();
  void conclude(const Finished& finished);
  void log(LogLevel level, std::string_view text);
  void log_later(LogLevel level, std::string_view text);
  std::uint32_t pause_ms() const;

  ProgramOptions options_;
  std::string stream_options_;
  bool read_system_ = false;

  std::mutex mutex_;  ///< for what follows
  std::unique_ptr<HostData> data_;
  DeviceReadings given_readings_;  ///< by the host
  Status status_;

  std::atomic<bool> stop_requested_{false};
  std::atomic<bool> looks_soon_{false};          ///< a look at the data is posted
  std::atomic<std::uint64_t> examples_told_{0};  ///< to the server
  std::atomic<std::thread::id> loop_thread_{};   ///< inside step or run

  transport::EventLoop loop_;
  std::unique_ptr<transport::Wakeup> wakeup_;
  std::optional<transport::Timer> look_timer_;
  std::optional<transport::Timer> stop_timer_;
  std::optional<LinuxConditions> system_;
  std::unique_ptr<Device> device_;
  std::optional<Finished> finished_;
  bool begun_ = false;
};

}  // namespace covey::client
