#pragma once

#include <chrono>
#include <covey/client/participant.hpp>
#include <covey/random.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/standing.hpp>
#include <covey/server/store.hpp>
#include <covey/server/update_pipeline.hpp>
#include <covey/server/upload_spool.hpp>
#include <covey/simulation/evaluation.hpp>
#include <covey/simulation/misfortune.hpp>
#include <covey/simulation/simulate.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "device_identities.hpp"
#include "devices/device_models.hpp"
#include "event_queue.hpp"
#include "fleet_faults.hpp"
#include "invariants.hpp"
#include "network_model.hpp"
#include "run_journal.hpp"
#include "training_pool.hpp"

namespace covey::simulation {

/// One life of the server: what its process holds in memory.
struct SimulatedServer {
  server::UpdatePipeline pipeline;
  server::RoundCoordinator coordinator;
  std::unique_ptr<server::UploadSpool> spool;
};
/// Starts the server: anew, or where its store says.
using BootServer =
    std::function<Result<SimulatedServer>(const std::optional<server::StoredStanding>& standing)>;

/// One server and all virtual devices in virtual time. Carries out the actions of the very state
/// machines that are deployed: messages travel over simulated links, training takes the time that
/// the device's speed says, the server's own computing takes none. One thread; training runs in the
/// pool.
///
/// A device that only waits for a moment (told when to come back, or away) is asleep: its
/// Participant is dropped and made again, so a million registered devices cost a few bytes each.
class Fleet {
 public:
  struct Parts {
    BootServer boot_server;
    SimulatedServer server;
    Evaluator evaluator;
    DeviceIdentities identities;
    DeviceModels models;
    std::uint32_t request_bytes = 0;                ///< of a device's BlobRequest
    std::unique_ptr<RunJournal> journal = nullptr;  ///< none: the run is not written down
    /// The pipeline as it was at a snapshot.
    std::function<Result<server::UpdatePipeline>(const Snapshot&)> put_back = nullptr;
    std::shared_ptr<const std::uint64_t> noise_bytes = nullptr;  ///< that the server drew so far
  };
  Fleet(const Experiment& experiment, const strategies::Registry& registry,
        const SimulationOptions& options, Parts parts);

  /// Until the run is over or the options' stop flag is set.
  Result<SimulationResult> run();

 private:
  using DeviceIndex = std::uint32_t;

  // ---- events: small, since a queue may hold one for each of a million devices
  struct ToServer {
    DeviceIndex device = 0;
    ConnectionId connection{};
    std::unique_ptr<ClientMessage> message;
  };
  struct ToDevice {
    DeviceIndex device = 0;
    ConnectionId connection{};
    std::unique_ptr<ServerMessage> message;
  };
  struct LinkUp {
    DeviceIndex device = 0;
    std::uint64_t dial = 0;
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
  struct Wake {
    DeviceIndex device = 0;
  };
  /// Of an awake device: it may be away, or on the charger, from now on.
  struct SurroundingsChange {
    DeviceIndex device = 0;
  };
  struct DeviceCrash {
    DeviceIndex device = 0;
    std::uint64_t life = 0;
    Duration gone{};
    bool noticed = false;  ///< the server sees the connection end
  };
  struct ServerBoot {};
  using Event = std::variant<ToServer, ToDevice, LinkUp, LinkDown, DeviceTimer, ServerTimer,
                             TrainingDone, Wake, SurroundingsChange, DeviceCrash, ServerBoot>;

  /// A job that runs, or what became of it without running.
  struct Training {
    std::uint64_t number = 0;
    std::uint64_t task = 0;  ///< the number that it began with
    RunId run{};
    RoundNumber round{};
    Duration took{};               ///< in all, without interruptions
    Time began{};                  ///< or went on
    Time due{};                    ///< when it ends, if the device stays
    std::optional<Duration> left;  ///< while it is interrupted
    double worked_s = 0;           ///< accounted so far
    double wasted_s = 0;           ///< of it, counted as wasted
    std::optional<client::TrainingTask>
        waiting;  ///< not submitted: it is interrupted before its end
    std::uint32_t epochs = 0;
    std::optional<TrainingPool::Key> job;
    std::optional<Error> failure;  ///< the device cannot finish: told at the end of `took`
    bool leaves = false;           ///< the device drops out instead of reporting
  };
  /// A device that is awake.
  struct Device {
    std::unique_ptr<client::Participant> participant;
    DeviceTraits traits;
    Battery battery;
    Surroundings surroundings;
    Time surroundings_since{};
    std::uint64_t life = 0;  ///< number of this waking, over all devices
    LinkDirection up, down;
    std::optional<ConnectionId> connection;  ///< as the device sees it
    std::uint64_t dial = 0;                  ///< the one under way
    std::uint64_t timer_generation = 0;
    Time offline_until{};
    Time report_by{};  ///< of the assignment at hand
    std::optional<Training> training;
    LeavesIn leaves_in = LeavesIn::kNever;  ///< in the task at hand
    Device(const DeviceTraits& device_traits, Battery charge)
        : traits(device_traits), battery(charge) {}
  };
  /// What local training takes with the network and precision that a device class is sent.
  struct TrainingCost {
    double flops_per_example = 0;
    std::uint64_t bytes = 0;  ///< weights twice, and a step's activations and gradients
  };
  /// What is remembered of a device that sleeps.
  struct Record {
    ConnectionId server_connection{};  ///< as the server sees it, a latency behind; 0: none
    client::ParticipantMemory memory;  ///< of its lives so far
    float unsettled_s = 0;             ///< training of an update that nobody has counted yet
    bool change_awaited = false;       ///< a SurroundingsChange is in the queue
    std::uint32_t last_round = 0;      ///< of its last task
    std::uint32_t tasks_of_round = 0;  ///< a round that was abandoned is tried again
  };

  void dispatch(Event event);
  Error stands_still() const;
  void on(ToServer& event);
  void on(ToDevice& event);
  void on(const LinkUp& event);
  void on(const LinkDown& event);
  void on(const DeviceTimer& event);
  void on(const ServerTimer& event);
  void on(const TrainingDone& event);
  void on(const Wake& event);
  void on(const SurroundingsChange& event);
  void on(const DeviceCrash& event);
  void on(const ServerBoot& event);

  // ---- the network: fleet.cpp
  void connect(DeviceIndex device);
  void hang_up(DeviceIndex device);
  void cut(DeviceIndex device, bool device_notices);
  void send_up(DeviceIndex device, ClientMessage message);
  void send_down(ConnectionId connection, ServerMessage message);
  void close_from_server(ConnectionId connection);
  template <typename Message>
  std::optional<std::size_t> pass_the_wire(Message& message);

  // ---- devices: fleet_devices.cpp
  void schedule_first_wakes();
  void wake_at(DeviceIndex device, Time at);
  void sleep(DeviceIndex device, Time until);
  void keep_model(DeviceIndex device);
  void rest();
  Time next_online(DeviceIndex device, Time from) const;
  Time next_absence(DeviceIndex device, Time until) const;
  void watch_surroundings(DeviceIndex device);
  void go_away(DeviceIndex device);
  void tell_device(DeviceIndex device, client::Event event);
  void carry_out(DeviceIndex device, client::Actions& actions);
  void start_training(DeviceIndex device, client::TrainingTask task);
  const TrainingCost& training_cost(const Device& device, const TrainingPlan& plan);
  Duration training_time(DeviceIndex device, const TrainingPlan& plan, std::uint32_t epochs);
  std::optional<Error> obstacle(Device& device, const TrainingPlan& plan, Training& training);
  void submit(DeviceIndex device, client::TrainingTask task);
  void plan_misfortune(DeviceIndex device, const client::TrainingTask& task, Training& training);
  void resume_training(DeviceIndex device);
  void cancel_training(DeviceIndex device);
  void account_training(Device& device);
  void give_up(Training& training);
  void settle_trainings(const RoundMetrics& metrics);
  RandomStream misfortune(DeviceIndex device, RandomPurpose purpose) const;

  // ---- fleet_secure.cpp
  static std::unique_ptr<privacy::SecretSource> secrets_of(std::uint64_t seed, ClientId client,
                                                           const AggregationRound& round,
                                                           std::uint64_t lives);
  client::ParticipantOptions participant_options(DeviceIndex device, const Device& state);
  void mask(DeviceIndex device, client::MaskUpdate& action);
  void leave(DeviceIndex device);
  void check_sum();
  void wrong_sum(const std::string& sentence);

  // ---- what goes wrong, and what holds all the same: fleet_faults.cpp
  Result<void> prepare_faults();
  bool striking() const { return faults_ && faults_->plan.strikes(now_, faults_->committed); }
  template <typename Sent>
  void deliver(Time at, Sent event);
  template <typename Sent>
  void deliver_badly(Time at, Sent event);
  void drop_damaged(const ToServer& event);
  void drop_damaged(const ToDevice& event);
  void maybe_crash(DeviceIndex device);
  void restart_finished(DeviceIndex device);
  Time device_now(DeviceIndex device) const;
  Time true_time(DeviceIndex device, Time device_time) const;
  std::size_t actions_until_crash(std::size_t actions);
  void crash_server();
  Result<void> raise_server();
  void publish_forgotten(const server::StoredStanding& standing);
  std::optional<server::Event> commit_round(const server::CommitRound& action);
  void record_published(const RoundMetrics& metrics);
  bool checks_sums() const { return options_.check_sums || invariants_ != nullptr; }
  bool disk_full();
  void tidy_spool(const server::OpenUpload& action);
  void check_progress();
  void check_end();

  // ---- the server: fleet_server.cpp
  void tell_server(server::Event event);
  void carry_out(server::Actions& actions);
  std::optional<server::Event> compute(server::Action& action);
  server::Event judge(const server::JudgeUpdate& action);
  void publish(const RoundMetrics& metrics);
  void add_device_figures(RoundMetrics& metrics);

  // ---- what computing answers: fleet_journal.cpp
  Result<client::TrainedUpdate> update_of(DeviceIndex device, const Training& training);
  std::optional<RunJournal::Rejection> judgement_of(const server::JudgeUpdate& action,
                                                    const SharedBytes& bytes);
  server::StrategyApplied apply(const server::ApplyStrategy& action);
  server::ModelEvaluated evaluation_of(RoundNumber round);
  void add_computed_figures(RoundMetrics& metrics);
  void write_down(RoundNumber round);
  Result<void> put_back(const Snapshot& snapshot);
  void check_journal();
  Error recalled_too_little() const;
  bool recalling() const { return journal_ && journal_->replaying(); }
  double elapsed_s() const;

  const Experiment& experiment_;
  const SimulationOptions& options_;
  DeviceModels models_;
  DeviceIdentities identities_;
  std::uint32_t request_bytes_ = 0;
  BootServer boot_server_;
  std::optional<SimulatedServer> server_;  ///< none while it is down
  TrainingPool pool_;
  std::map<Digest, SharedBytes>
      unmasked_;  ///< by the digest of what they became, where sums are checked
  std::map<ClientId, Digest> summed_;  ///< accepted into the sum at hand
  Evaluator evaluator_;
  /// By device class: shared by its Participants.
  std::vector<std::shared_ptr<client::PlannedModel>> planned_;
  std::vector<std::optional<TrainingCost>> training_costs_;  ///< by device class
  std::vector<DeviceIndex> to_rest_;  ///< devices that became idle in the event at hand
  EventQueue<Event> queue_;
  std::vector<std::unique_ptr<Device>> devices_;  ///< null: asleep
  std::vector<Record> records_;
  std::unordered_map<DeviceIndex, client::SavedModel> held_models_;  ///< with fleet.keep-model
  /// Bytes that are alive while a device holds them.
  std::map<Digest, std::pair<std::weak_ptr<const void>, std::span<const std::byte>>> kept_models_;
  std::size_t kept_models_in_use_ = 0;
  std::unique_ptr<FleetFaults> faults_;     ///< none: nothing goes wrong
  std::unique_ptr<Invariants> invariants_;  ///< none: not checked
  std::unique_ptr<RunJournal> journal_;
  std::function<Result<server::UpdatePipeline>(const Snapshot&)> put_back_;
  std::shared_ptr<const std::uint64_t> noise_bytes_;
  Time now_{};
  std::chrono::steady_clock::time_point began_;
  std::uint32_t connections_ = 0;  ///< made so far
  std::uint64_t dials_ = 0;
  std::uint64_t lives_ = 0;
  std::uint64_t timers_ = 0;
  std::uint64_t server_timer_generation_ = 0;
  std::uint64_t trainings_ = 0;
  std::uint32_t abandoned_in_a_row_ = 0;
  double energy_j_ = 0;             ///< since the last published round
  Time last_commit_{};
  double wasted_s_ = 0;             ///< device time since then on training that counts for nothing
  double summed_s_ = 0;             ///< of the updates in the sum at hand
  std::set<DeviceIndex> training_;  ///< devices at it, also interrupted ones
  std::string problem_of_round_;    ///< of a device or a round: told if the run fails
  std::vector<server::Event>
      server_inbox_;  ///< answers to the server's own computing, still to be told
  bool telling_server_ = false;
  std::optional<server::RunFinished> finished_;
  std::optional<Error> internal_error_;
  SimulationResult result_;
};

}  // namespace covey::simulation
