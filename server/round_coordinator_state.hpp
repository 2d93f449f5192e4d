#pragma once

#include <algorithm>
#include <covey/server/round_coordinator.hpp>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "cohort.hpp"
#include "cohort_selection.hpp"
#include "device_history.hpp"
#include "oort_selection.hpp"
#include "roster.hpp"
#include "status.hpp"
#include "upload_slots.hpp"

namespace covey::server {

/// The coordinator's insides: round_coordinator.cpp has the phases up to the closing of a round,
/// round_coordinator_commit.cpp what follows and the end of the run, round_coordinator_devices.cpp
/// what a connection says, round_coordinator_uploads.cpp how an update comes in,
/// round_coordinator_sum.cpp the steps of a secure sum around that,
/// round_coordinator_history.cpp who may be drawn, and what is remembered for that,
/// round_coordinator_asynchronous.cpp what is otherwise where there are no cohorts.
struct RoundCoordinator::State {
  /// The run file's figures as the state machine uses them.
  struct Times {
    Duration heartbeat;
    Duration selection_timeout;
    Duration round_deadline;
    RetryWindow retry;   ///< after a report
    RetryWindow busy;    ///< when there is nothing to do for a device
    RetryWindow relief;  ///< when the server could not store an update
    Duration chunk;      ///< a chunk's journey over the slowest link that is waited for
    explicit Times(const RunConfig& config);
    /// So long a silence means that a device has dropped out.
    Duration silence() const { return 3 * heartbeat; }
    /// So long without a whole chunk means that an upload stalls.
    Duration stall() const { return silence() + chunk; }
  };

  /// Asynchronous aggregation, beside the cohort of those who are at work.
  struct Buffer {
    struct InFlight {
      ClientId client{};
      RoundNumber round{};
      Time deadline{};
    };

    explicit Buffer(const AsynchronousConfig& config, std::size_t selection_goal);

    const std::size_t size;         ///< K; 0: rounds are synchronous
    const std::size_t concurrency;  ///< devices at work at a time
    const std::uint32_t max_staleness;

    /// Assignments whose update is not here yet, by ticket, which is also by round and by deadline.
    std::map<std::uint64_t, InFlight> in_flight;
    std::uint64_t next_ticket = 1;
    std::uint64_t draws = 0;                     ///< of this round
    std::deque<std::pair<Time, ClientId>> away;  ///< lost their connection then; some are back
    std::map<std::uint64_t, ClientId> ready;     ///< wait to be judged, in order of arrival
    std::uint64_t next_ready_place = 1;
    std::size_t judging = 0;                       ///< JudgeUpdate not answered yet
    std::uint64_t sum = 1;                         ///< names the sum at hand
    std::vector<ClientId> accepted;                ///< in it
    std::set<ClientId> decided, decided_before;    ///< during it and the one before
    std::map<ClientId, Time> not_before;           ///< who has to pause gets no work before
    std::deque<std::pair<Time, ClientId>> pauses;  ///< the same in order of their ends
    RoundMetrics metrics;                          ///< of the round in progress
  };

  State(CoordinatorOptions options_in, RunState state_in);

  const CoordinatorOptions options;
  const Times times;
  const SelectionSizes sizes;
  const SelectionPolicy policy;
  const bool remembers;               ///< the policy asks for what devices did so far
  const std::uint64_t upload_window;  ///< bytes a device may send ahead

  const RunId run;
  RoundNumber committed;
  EncodedModel model;
  Digest model_digest;  ///< of its fp32 parameters
  Digest sent_digest;   ///< of what devices are sent

  Phase phase = Phase::kSelection;
  /// What phase kCommit (or kStopping) waits for.
  enum class Awaiting : std::uint8_t { kNothing, kStrategy, kStore, kEvaluation };
  Awaiting awaiting = Awaiting::kNothing;
  RefusalReason farewell = RefusalReason::kRunFinished;  ///< what a device is told once it is over
  Roster roster;
  Cohort cohort;
  UploadSlots slots;
  std::shared_ptr<const ModelVersion> version;  ///< what devices are given now
  Time clock{};                                 ///< of the event at hand
  Buffer buffer;

  // The round in progress is committed + 1.
  std::uint32_t attempt = 0;      ///< abandoned attempts of it
  std::size_t goal = 0;           ///< of this cohort: min(sizes.goal, pool)
  std::size_t quorum = 0;         ///< of this cohort: min(sizes.quorum, cohort)
  bool closing = false;           ///< waits only for answers of the pipeline
  std::size_t outstanding = 0;    ///< OpenUpload and JudgeUpdate not answered yet
  std::uint64_t turned_away = 0;  ///< devices sent away since the last selection: the pool was full
  RoundMetrics metrics;
  std::optional<EncodedModel> candidate;  ///< the new model while it is being made durable
  std::optional<double> last_accuracy;
  std::optional<double> last_loss;

  TrainingPlan round_plan;               ///< as this round's devices are sent it
  std::optional<PrivacyStatus> privacy;  ///< with differential privacy
  std::optional<double> sum_clip;        ///< of secure sums, where it adapts
  // The secure sum of the round in progress.
  std::optional<privacy::SecAggServer> sum;
  AggregationId aggregation;    ///< this attempt's name
  std::size_t faults_told = 0;  ///< of sum->faults()
  std::size_t revealed_before =
      0;                  ///< members that keep out: they revealed shares in this round before
  DeviceHistory history;  ///< what policy and limits ask for
  OortPreferences oort;
  Duration last_round{};      ///< how long the last committed one took
  std::set<ClientId> barred;  ///< dealt shares that do not fit together: out of the run

  // Internal deadlines; the one timer stands at the earliest.
  std::optional<Time> selection_at;  ///< kSelection: the timeout
  std::optional<Time>
      selection_opens;              ///< kSelection: no round starts before (after an abandoned one)
  std::optional<Time> deadline;     ///< kReporting
  std::optional<Time> liveness_at;  ///< kReporting: look for silent devices and stalled uploads
  std::optional<Time> step_at;      ///< kReporting: a step of the secure sum waits until then
  std::optional<Time> store_again;  ///< kCommit: the store failed; when it is tried again
  std::optional<Time> timer;        ///< what the driver was last told
  std::uint32_t store_failures = 0;  ///< in a row

  RoundNumber round() const { return next(committed); }
  bool over() const { return phase == Phase::kStopping || phase == Phase::kFinished; }
  bool reporting() const { return phase == Phase::kReporting && !closing; }
  bool asynchronous() const { return buffer.size > 0; }
  /// Of the round that what happens now belongs to: `metrics` may be those of one that is ending.
  RoundMetrics& figures() { return asynchronous() ? buffer.metrics : metrics; }
  bool summing() const { return phase == Phase::kReporting && sum.has_value(); }

  // ---- phases: round_coordinator.cpp
  void start(Time now, Actions& actions);
  /// After every event: whatever has become due without a deadline, then the timer. O(1) when
  /// nothing.
  void settle(Time now, Actions& actions);
  void next_round(Time now, Actions& actions);
  void enter_selection(Time opens);
  void try_start(Time now, Actions& actions);
  void selection_timed_out(Time now, Actions& actions);
  void configure(Time now, Actions& actions);
  void new_version();
  void on(Time now, TimerFired& event, Actions& actions);
  void check_liveness(Time now, Actions& actions);
  void close_stalled(Time now, Actions& actions);
  std::size_t reports_needed() const;
  void close_reporting(Time now, Actions& actions);
  void end_reporting(Actions& actions);
  void arm_timer(Actions& actions);
  std::string status_json(Time now) const;

  // ---- commit and the end: round_coordinator_commit.cpp
  void commit(Time now, std::optional<EncodedModel> new_model, Actions& actions);
  void on(Time now, StrategyApplied& event, Actions& actions);
  void note_privacy(PrivacyStatus status);
  void on(Time now, RoundStored& event, Actions& actions);
  CommitRound commit_action() const;
  std::vector<ClientId> counted() const;
  void store_failed(Time now, const Error& error, Actions& actions);
  bool evaluation_due() const;
  void try_again(Time now, Actions& actions);
  void announce_round_over(Actions& actions);
  void on(Time now, ModelEvaluated& event, Actions& actions);
  void complete_round(Time now, Actions& actions);
  void go_on(Time now, Actions& actions);
  void on(Time now, StopRequested& event, Actions& actions);
  void finish(RunFinished end, RefusalReason reason, Actions& actions);
  void dismiss_everyone(RefusalReason reason, const std::string& text, Actions& actions);

  // ---- connections and their messages: round_coordinator_devices.cpp
  void on(Time now, DeviceConnected& event, Actions& actions);
  void on(Time now, DeviceGone& event, Actions& actions);
  void on(Time now, Received& event, Actions& actions);
  // `connection` is gone after disconnect and refuse.
  void disconnect(Connection& connection);
  void refuse(Connection& connection, RefusalReason reason, std::string text, Actions& actions);
  void greet(Connection& connection, const Hello& hello, Actions& actions);
  void operator_message(Time now, Connection& connection, const ClientMessage& message,
                        Actions& actions);
  void on_message(Time now, Connection& connection, Hello& message, Actions& actions);
  void on_message(Time now, Connection& connection, CheckIn& message, Actions& actions);
  void on_message(Time now, Connection& connection, BlobRequest& message, Actions& actions);
  void on_message(Time now, Connection& connection, Progress& message, Actions& actions);
  void on_message(Time now, Connection& connection, Decline& message, Actions& actions);
  void on_message(Time now, Connection& connection, StatusRequest& message, Actions& actions);
  void assign(Time now, Member& member, Connection& connection, Actions& actions);
  std::optional<std::string> ineligible(const DeviceConditions& conditions,
                                        std::uint32_t variant) const;
  TrainingPlan plan_for(const Member& member) const;
  const SharedBytes* blob_for(const Member& member, const Digest& digest) const;
  const std::vector<OfferedCompressor>& compressors(std::uint32_t variant) const;
  RetryWindow full_pool_window() const;

  // ---- the secure sum: round_coordinator_sum.cpp
  void begin_sum();
  void settle_sum(Time now, Actions& actions);
  bool step_over(Time now);
  void close_step(Time now, Actions& actions);
  void send_step(Member& member, Actions& actions);
  void miss(Member& member, Actions& actions);
  void leave_sum(Member& member);
  void tell_accepted(Member& member, ConnectionId connection, Actions& actions);
  void expel(Member& member, const Error& error, Actions& actions);
  void unmask(Actions& actions, Time now);
  void abandon_sum(Time now, const std::string& reason, Actions& actions);
  void tell_faults(Actions& actions);
  bool in_sum(const Member& member) const;
  std::size_t unadvertised() const;
  bool unadvertised_silent_since(Time moment) const;
  std::uint32_t recovered() const;
  Member* member_in_sum(Connection& connection, const AggregationRound& message, Actions& actions);
  void on_message(Time now, Connection& connection, AdvertiseKeys& message, Actions& actions);
  void on_message(Time now, Connection& connection, ShareKeys& message, Actions& actions);
  void on_message(Time now, Connection& connection, ConfirmSurvivors& message, Actions& actions);
  void on_message(Time now, Connection& connection, Unmask& message, Actions& actions);

  // ---- who may be drawn, and what is remembered of it: round_coordinator_history.cpp
  std::size_t start_at() const;
  std::vector<ClientId> draw(std::size_t count) const;
  bool used_up(Actions& actions);
  bool shut_out(Connection& connection, Actions& actions);
  void recheck_pool(ClientId client, Actions& actions);
  RetryWindow rest_window(ClientId client) const;
  void remember_presence(const Connection& connection, bool here);
  void remember_report(const Member& member);
  void remember_missed(const Member& member);
  void remember_round(const std::vector<ClientId>& clients, Actions& actions);

  // ---- updates: round_coordinator_uploads.cpp
  void on_message(Time now, Connection& connection, Report& message, Actions& actions);
  void on_message(Time now, Connection& connection, BlobChunk& message, Actions& actions);
  void take_report(Member& member, Connection& connection, Report report, Actions& actions);
  void on(Time now, UploadOpened& event, Actions& actions);
  void on(Time now, UpdateJudged& event, Actions& actions);
  void on(Time now, UploadFailed& event, Actions& actions);
  void pump_uploads(Actions& actions);
  void begin_upload(Time now, Member& member, Upload& upload, std::uint64_t offset,
                    Actions& actions);
  void uploaded(Member& member, Actions& actions);
  void withdraw(Member& member);
  void drop_upload(const Member& member, Actions& actions) const;
  void judge(Member& member, Actions& actions);
  void judged();
  void upload_failed(Member& member, const std::string& what, Actions& actions);
  void accept(Member& member, Actions& actions);
  void reject(Member& member, RejectReason reason, std::string text, Actions& actions);
  void send_rejection(ConnectionId connection, const Report& report, RejectReason reason,
                      std::string text, Actions& actions) const;
  std::optional<std::pair<RejectReason, std::string>> fault_of(const Member& member,
                                                               const Report& report) const;
  UploadKey key_of(const Member& member) const;

  // ---- no cohorts: round_coordinator_asynchronous.cpp
  void begin_step(Time now, Actions& actions);
  void settle_step(Time now, Actions& actions);
  void hand_out(Time now, Actions& actions);
  void judge_ready(Actions& actions);
  void apply_buffer(Time now, Actions& actions);
  void step_stored(Actions& actions);
  void expire(Actions& actions);
  void on_step_timer(Time now, Actions& actions);
  std::optional<Time> step_due() const;
  void add_step_status(Status& status) const;
  void give_up(Member& member, Actions& actions);
  void decided(Member& member);
  void went_away(Member& member);
  void back_to_work(Member& member);
  bool rests(ClientId client);
  void turn_away(Member& member, Actions& actions);
  void drop_unfinished(Actions& actions) const;
  void leave_ready(const Member& member);
  void begin_pause(ClientId client);
  bool pauses(Time now, Connection& connection, Actions& actions);
  std::uint32_t staleness_of(RoundNumber round) const;
  RoundNumber oldest_wanted() const;

  void send(ConnectionId connection, ServerMessage message, Actions& actions) const {
    actions.emplace_back(Send{connection, std::move(message)});
  }
};

}  // namespace covey::server
