#pragma once

#include <atomic>
#include <covey/client/participant.hpp>
#include <covey/client/spool.hpp>
#include <covey/client/trainer.hpp>
#include <covey/transport/connection.hpp>
#include <covey/transport/event_loop.hpp>
#include <covey/transport/worker_pool.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/daemon/log.hpp"
#include "client/daemon/sudden_death.hpp"
#include "client/daemon/transfer_count.hpp"

namespace covey::client {

/// Trainers for a pool of threads: each job borrows one. Thread-safe.
class TrainerPool {
 public:
  /// `make` is called when no trainer is idle; `prepare` points it at the client's examples.
  TrainerPool(std::function<std::unique_ptr<Trainer>()> make,
              std::function<void(Trainer&, ClientId)> prepare);
  Result<TrainedUpdate> train(const TrainingTask& task, const TrainingControl& control);

 private:
  std::function<std::unique_ptr<Trainer>()> make_;
  std::function<void(Trainer&, ClientId)> prepare_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Trainer>> idle_;
};

/// The disk of one device: a Spool in `directory`, which is made and locked. Error if it is in use
/// or cannot be written.
Result<std::unique_ptr<Spool>> open_spool(const std::string& directory, ClientId client,
                                          std::uint64_t max_bytes, Log log,
                                          SuddenDeath* death = nullptr);

/// Carries out one participant's actions on a real connection: frames to events, actions to
/// effects. Loop thread only; training runs on the worker pool and comes back as an event.
class Driver {
 public:
  /// What the owner of a driver is told, on the loop's thread. Empty functions are left out.
  struct Host {
    Log log = nullptr;  ///< lines without the device's name
    std::function<void(std::string_view phase)> on_phase = nullptr;  ///< when it changes
    std::function<void(RoundOfRun round)> on_accepted = nullptr;     ///< an update was counted
    std::function<void()> on_finished = nullptr;
    /// What survives the process; null: nothing does. From open_spool.
    std::unique_ptr<Spool> spool = nullptr;
    SuddenDeath* death = nullptr;  ///< for tests; outlives the driver
  };
  Driver(transport::EventLoop& loop, std::unique_ptr<transport::Dialer> dialer,
         ParticipantOptions options, TrainerPool& trainers, transport::WorkerPool& workers,
         Host host);
  ~Driver();

  /// For tests of a server: which of its messages the device leaves at instead of answering, and
  /// how long it then stays away.
  struct DropOut {
    std::function<bool(ClientId, const ServerMessage&)> leaves_at = nullptr;
    Duration away{};
  };
  void drop_out(DropOut drop_out) { drop_out_ = std::move(drop_out); }

  void start();
  void stop();  ///< politely: declines what no later process can go on with
  void change_conditions(DeviceConditions conditions, Permissions permissions);

  std::string_view phase() const { return participant_.phase_name(); }
  const std::optional<Finished>& finished() const { return finished_; }
  std::uint32_t rounds_accepted() const { return participant_.rounds_accepted(); }
  /// The last update that was counted, maybe one of an earlier process.
  const std::optional<RoundOfRun>& last_counted() const { return participant_.last_counted(); }
  /// Of models and updates, on all connections so far.
  const TransferCount& transfers() const { return transfers_; }
  /// Of frames, without TLS, on all connections so far.
  std::uint64_t bytes_sent() const {
    return bytes_sent_ + (connection_ ? connection_->bytes_sent() : 0);
  }
  std::uint64_t bytes_received() const {
    return bytes_received_ + (connection_ ? connection_->bytes_received() : 0);
  }

 private:
  struct Training {
    TrainingTask task;
    std::atomic<bool> cancelled{false};
    std::atomic<std::uint32_t> steps_done{0};
    std::atomic<bool> wrap_up{false};
    std::atomic<bool> paused{false};
    std::optional<Time> wrap_up_at;  ///< when what is done has to do
  };

  void connect();
  void on_closed(std::uint64_t attempt, const Error& reason);
  void on_message(ServerMessage message);
  void finish(Finished finished);
  void tell(Event event);
  void carry_out(Actions& actions);
  void start_training(TrainingTask task);
  void start_masking(MaskUpdate masking);
  void cancel_training();
  void pause_training(bool pause);
  void save(const SavedWork& work);
  void wait_for_disk();
  Moment moment() const;
  static ParticipantOptions with_saved_work(ParticipantOptions options, Spool* spool, Moment now);
  void look_at_training();
  void forget_connection();
  void tell_host();
  void step() const;
  void log(LogLevel level, std::string_view text) const;

  transport::EventLoop& loop_;
  std::unique_ptr<transport::Dialer> dialer_;
  Host host_;
  Participant participant_;
  TrainerPool& trainers_;
  transport::WorkerPool& workers_;
  std::string_view phase_told_;  ///< to the host; of static storage
  std::uint32_t accepted_told_ = 0;
  transport::Timer timer_;
  transport::Timer training_watch_;
  transport::Timer away_timer_;
  DropOut drop_out_;
  Time away_until_{};
  std::shared_ptr<transport::Connection> connection_;
  bool refused_message_ = false;  ///< one that came on it does not decode
  std::uint64_t attempt_ = 0;   ///< of connecting; answers of earlier ones are stale
  std::uint32_t refusals_ = 0;  ///< of our certificate, in a row
  std::shared_ptr<Training> training_;
  std::optional<Finished> finished_;
  std::uint64_t bytes_sent_ = 0, bytes_received_ = 0;
  TransferCount transfers_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  ///< posted answers may outlive us
};

}  // namespace covey::client
