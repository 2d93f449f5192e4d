#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include <covey/server/fleet_record.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/store.hpp>
#include <covey/server/update_pipeline.hpp>
#include <covey/server/upload_spool.hpp>
#include <covey/transport/connection.hpp>
#include <covey/transport/event_loop.hpp>
#include <covey/transport/worker_pool.hpp>

namespace covey::server {

/// Carries out the coordinator's actions on real sockets, disk and threads: turns frames into events
/// (with the time) and actions into effects. Everything here runs on the loop's thread, except the
/// pipeline, the spool, the store and the evaluation, which belong to one worker that takes its jobs in
/// order; answers come back as events.
class Driver {
 public:
  struct Options {
    transport::Listener::Options listener;
    std::uint32_t keep_snapshots = 3;
    /// (model) -> (accuracy, loss); on the worker. Empty: no evaluation.
    std::function<std::pair<double, double>(std::span<const float>)> evaluate;
    std::function<void(const RoundMetrics&)> on_round;  ///< on the loop's thread
    FleetRecord* record = nullptr;  ///< of what devices do, for `covey replay`; on the loop's thread
  };

  Driver(transport::EventLoop& loop, Options options, CoordinatorOptions coordinator,
         RunState state, UpdatePipeline pipeline, std::unique_ptr<UploadSpool> spool, Store store);
  ~Driver();

  /// Listens and starts the run. The loop is stopped when the run is over.
  Result<void> start();
  /// Ends the run politely; from the loop's thread.
  void stop();

  std::uint16_t port() const { return listener_->port(); }
  const std::optional<RunFinished>& finished() const { return finished_; }
  const RoundCoordinator& coordinator() const { return coordinator_; }
  /// As the run began; before `start`.
  std::optional<PrivacyStatus> privacy_status() const { return pipeline_.privacy_status(); }
  std::uint64_t bytes_sent() const { return bytes_sent_; }
  std::uint64_t bytes_received() const { return bytes_received_; }

 private:
  struct Peer {
    std::shared_ptr<transport::Connection> connection;
    std::string name;
    bool remembered = false;  ///< this connection's check-in is in the store
    std::optional<ClientId> device = std::nullopt;  ///< whose it is in options_.record; none: not recorded
  };

  transport::ConnectionHandlers handlers();
  void on_open(ConnectionId id, std::shared_ptr<transport::Connection> connection);
  void on_frame(ConnectionId id, std::span<const std::byte> header, SharedBytes payload);
  void on_closed(ConnectionId id, const Error& reason);
  /// Closes connections whose certificates were revoked or have expired since their handshake.
  void watch_trust();
  /// Notes in the store that a device was here, and with which version.
  void remember(const transport::PeerIdentity& peer, const std::string& agent_version);

  void tell(Event event);
  void carry_out(Actions& actions);
  void publish(const RoundMetrics& metrics);
  void finish(RunFinished finished);
  /// Runs `job` on the worker; what it returns is told to the coordinator.
  void on_worker(std::function<std::optional<Event>()> job);
  std::optional<Event> compute(const Action& action);

  transport::EventLoop& loop_;
  Options options_;
  RoundCoordinator coordinator_;
  UpdatePipeline pipeline_;
  std::unique_ptr<UploadSpool> spool_;
  Store store_;
  transport::Timer timer_;
  transport::Timer last_goodbye_;
  transport::Timer trust_watch_;
  std::uint64_t trust_version_ = 0, trust_looks_ = 0;
  std::unique_ptr<transport::Listener> listener_;
  std::unordered_map<std::uint64_t, Peer> peers_;
  std::uint64_t next_connection_ = 1;
  std::optional<RoundNumber> spool_oldest_;  ///< worker: uploads of earlier rounds were dropped
  std::uint64_t bytes_sent_ = 0, bytes_received_ = 0;  ///< of closed connections
  std::optional<RunFinished> finished_;
  std::unique_ptr<transport::WorkerPool> worker_;  ///< last: its jobs use all of the above
};

}  // namespace covey::server
