#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include <covey/client/participant.hpp>
#include <covey/proto/codec.hpp>
#include <covey/random.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/update_pipeline.hpp>
#include <covey/server/upload_spool.hpp>
#include <covey/simulation/evaluation.hpp>
#include <covey/simulation/misfortune.hpp>
#include <covey/simulation/simulate.hpp>

#include "device_identities.hpp"
#include "event_queue.hpp"
#include "network_model.hpp"
#include "training_pool.hpp"

namespace covey::simulation {

/// One server and all virtual devices in virtual time. Carries out the actions of the very state
/// machines that are deployed: messages travel over simulated links, training takes the time that the
/// device's speed says, the server's own computing takes none. One thread; training runs in the pool.
class Fleet {
 public:
  struct Server {
    server::UpdatePipeline pipeline;
    server::CoordinatorOptions coordinator;
    server::RunState state;
    Evaluator evaluator;
    DeviceIdentities identities;
  };
  Fleet(const Experiment& experiment, const strategies::Registry& registry,
        const SimulationOptions& options, Server server);

  /// Until the run is over or the options' stop flag is set.
  Result<SimulationResult> run();

 private:
  using DeviceIndex = std::uint32_t;

  // ---- events
  struct ToServer {
    DeviceIndex device = 0;
    ConnectionId connection{};
    ClientMessage message;
  };
  struct ToDevice {
    DeviceIndex device = 0;
    ConnectionId connection{};
    ServerMessage message;
  };
  struct LinkUp {
    DeviceIndex device = 0;
  };
  struct LinkDown {
    DeviceIndex device = 0;
    ConnectionId connection{};
    bool seen_by_server = false;  ///< the device hung up; otherwise the server or the network did
  };
  struct DeviceTimer {
    DeviceIndex device = 0;
    std::uint64_t generation = 0;
  };
  struct ServerTimer {
    std::uint64_t generation = 0;
  };
  struct TrainingDone {
    DeviceIndex device = 0;
    std::uint64_t training = 0;
  };
  using Event =
      std::variant<ToServer, ToDevice, LinkUp, LinkDown, DeviceTimer, ServerTimer, TrainingDone>;

  /// A job that runs, or what became of it without running.
  struct Training {
    std::uint64_t number = 0;
    RunId run{};
    RoundNumber round{};
    Duration took{};
    std::optional<TrainingPool::Key> job;
    std::optional<Error> failure;  ///< the device cannot finish: told at the end of `took`
    bool leaves = false;           ///< the device drops out instead of reporting
  };
  struct Device {
    std::unique_ptr<client::Participant> participant;
    DeviceTraits traits;
    LinkDirection up, down;
    std::optional<ConnectionId> connection;         ///< as the device sees it
    std::optional<ConnectionId> server_connection;  ///< as the server sees it: a latency behind
    std::uint64_t timer_generation = 0;
    Time offline_until{};
    std::optional<Training> training;
    LeavesIn leaves_in = LeavesIn::kNever;  ///< in the task at hand
    RoundNumber last_round{};            ///< of its last task
    std::uint64_t tasks_of_round = 0;    ///< a round that was abandoned is tried again
  };

  void dispatch(Event event);
  void on(ToServer& event);
  void on(ToDevice& event);
  void on(const LinkUp& event);
  void on(const LinkDown& event);
  void on(const DeviceTimer& event);
  void on(const ServerTimer& event);
  void on(const TrainingDone& event);

  void tell_device(DeviceIndex device, client::Event event);
  void carry_out(DeviceIndex device, client::Actions& actions);
  void connect(DeviceIndex device);
  void hang_up(DeviceIndex device);
  void send_up(DeviceIndex device, ClientMessage message);
  void start_training(DeviceIndex device, client::TrainingTask task);
  void cancel_training(DeviceIndex device);
  RandomStream misfortune(DeviceIndex device, RandomPurpose purpose) const;

  // ---- fleet_secure.cpp
  static std::unique_ptr<privacy::SecretSource> secrets_of(std::uint64_t seed, ClientId client,
                                                           const AggregationRound& round);
  client::ParticipantOptions participant_options(DeviceIndex device, std::uint32_t request_bytes,
                                                 const DeviceIdentities& identities) const;
  void mask(DeviceIndex device, client::MaskUpdate& action);
  void leave(DeviceIndex device);
  void check_sum();

  void tell_server(server::Event event);
  void carry_out(server::Actions& actions);
  void send_down(ConnectionId connection, ServerMessage message);
  void close_from_server(ConnectionId connection);
  std::optional<server::Event> compute(server::Action& action);
  void publish(const RoundMetrics& metrics);

  const Experiment& experiment_;
  const SimulationOptions& options_;
  server::UpdatePipeline pipeline_;
  server::RoundCoordinator coordinator_;
  std::unique_ptr<server::UploadSpool> spool_;
  TrainingPool pool_;
  std::map<ClientId, SharedBytes> unmasked_;  ///< of the round at hand, where sums are checked
  Evaluator evaluator_;
  EventQueue<Event> queue_;
  std::vector<Device> devices_;
  /// By connection number: whose it is. Numbers are given in order, so a vector does.
  std::vector<DeviceIndex> connection_owner_;
  Time now_{};
  std::uint64_t server_timer_generation_ = 0;
  std::uint64_t trainings_ = 0;
  std::uint32_t abandoned_in_a_row_ = 0;
  std::string problem_of_round_;  ///< of a device or a round: told if the run fails
  std::vector<server::Event> server_inbox_;  ///< answers to the server's own computing, still to be told
  bool telling_server_ = false;
  std::optional<server::RunFinished> finished_;
  std::optional<Error> internal_error_;
  SimulationResult result_;
};

}  // namespace covey::simulation
