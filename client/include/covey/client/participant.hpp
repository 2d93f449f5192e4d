#pragma once

#include <covey/bytes.hpp>
#include <covey/client/link_rate.hpp>
#include <covey/client/saved_work.hpp>
#include <covey/client/trainer.hpp>
#include <covey/client/transfer.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secagg_device.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

/// The device's side of the protocol as a state machine: events in, actions out, time is an input.
namespace covey::client {

// ---- events
struct Connected {};
struct ConnectionLost {
  std::string reason;
  bool violation = false;  ///< the host hung up on what no honest server sends
};
struct Received {
  ServerMessage message;
};
struct TimerFired {};
struct TrainingProgress {
  std::uint32_t steps_done = 0;
  std::uint32_t steps_total = 0;
};
struct TrainingFinished {
  RunId run{};
  RoundNumber round{};
  Result<TrainedUpdate> result;
  Duration took{};
};
/// Answers MaskUpdate.
struct UpdateMasked {
  AggregationRound round;
  Result<SharedBytes> masked;
};
/// What the owner's conditions allow now (client/conditions.hpp).
struct Permissions {
  bool train = true;        ///< take new tasks and compute; else a training at hand rests
  bool transfer = true;     ///< use the network; else the connection is given up and not sought
  std::string reason;       ///< why not, in words
  std::uint32_t unmet = 0;  ///< the owner's rules that are not met, a bit each (permissions_of)
  bool operator==(const Permissions&) const = default;
};
struct ConditionsChanged {
  DeviceConditions conditions;
  Permissions permissions = {};
};
/// Leave politely: the task at hand is declined unless saved work lets a later process go on with it,
/// the connection closed.
struct StopRequested {};
using Event = std::variant<Connected, ConnectionLost, Received, TimerFired, TrainingProgress,
                           TrainingFinished, UpdateMasked, ConditionsChanged, StopRequested>;

// ---- actions
struct Connect {};
struct Disconnect {};
struct Send {
  ClientMessage message;
};
/// One timer; a new one replaces it.
struct SetTimer {
  Time at{};
};
/// Train, and hand in a TrainingFinished with the task's run and round.
struct StartTraining {
  TrainingTask task;
};
/// The owner's conditions let the training at hand rest, and go on.
struct PauseTraining {};
struct ResumeTraining {};
/// The training at hand is void: stop it and drop its result. (A TrainingFinished of another run or
/// round is ignored anyway.)
struct CancelTraining {};
/// Mask the packed update (job->run), and hand in an UpdateMasked of this round.
struct MaskUpdate {
  AggregationRound round;
  std::shared_ptr<const privacy::MaskJob> job;
  privacy::PackedFormat format;
  SharedBytes update;
};
/// To be kept for a later process in place of what was saved before: durable before the next action
/// is carried out. (With ParticipantOptions::saves_work, as AppendDownload.)
struct Save {
  std::shared_ptr<const SavedWork> work;
};
/// A fact for the log, in words: "round 12 accepted".
struct Note {
  std::string text;
};
/// Nothing will happen any more. `ok`: the run ended or a stop was asked for; else the server
/// refused us.
struct Finished {
  bool ok = true;
  std::string reason;
};
using Action =
    std::variant<Connect, Disconnect, Send, SetTimer, StartTraining, PauseTraining, ResumeTraining,
                 CancelTraining, MaskUpdate, Save, AppendDownload, Note, Finished>;
using Actions = std::vector<Action>;

/// What a device's owner asks of a plan before the device contributes: a server that asks for less
/// gets nothing.
struct RequiredPrivacy {
  ThreatModel threat_model = ThreatModel::kNone;  ///< at least
  double corruption = 0;          ///< share of devices that may work with the server, at least
  std::uint32_t min_devices = 0;  ///< fewest that advertise keys for a sum
};

/// What a plan's network takes, found out once.
struct PlannedModel {
  ModelSpec spec;
  std::string precision;               ///< "": nothing is known yet
  std::optional<std::uint64_t> bytes;  ///< none: a TorchScript file
};

struct ParticipantOptions {
  ClientId client{};              ///< from the device's own certificate
  std::uint64_t seed = 0;         ///< of backoff jitter
  ParticipantMemory memory = {};  ///< of earlier lives of this device
  DeviceConditions conditions;
  Permissions permissions = {};  ///< from the first moment on
  /// Whether what it does is to survive its process (Save, AppendDownload); then a stop declines
  /// nothing that the next process can go on with.
  bool saves_work = false;
  /// Of an earlier process of this device; its memory takes the place of `memory`.
  std::optional<SavedWork> saved = std::nullopt;
  Duration backoff_min = std::chrono::milliseconds(200);  ///< first wait after a lost connection
  Duration backoff_max = std::chrono::seconds(60);        ///< doubles up to this, with full jitter
  Duration answer_timeout = std::chrono::seconds(30);     ///< silence while an answer is owed
  std::uint32_t request_bytes = 256 * 1024;  ///< of a BlobRequest, at most the server's chunk
  /// Pieces are of what the link was seen to bring in this time, and `request_bytes` at most: on a
  /// slow link a cut then loses little. 0: always `request_bytes`.
  Duration piece_time{};
  std::uint64_t max_model_bytes = std::uint64_t{1} << 30;  ///< larger models are declined
  /// What else the device asks of a plan before anything is downloaded for it, such as that it fits its memory:
  /// the error is the reason it declines with. Empty: nothing.
  std::function<Result<void>(const TrainingPlan&)> check_plan = nullptr;
  /// Whether so many more bytes of memory fit: else a model comes whole instead of as a difference.
  std::function<bool(std::uint64_t bytes)> has_room = nullptr;
  /// Longest that a training computes, rests not counted; then its task is declined. 0: no limit.
  Duration max_training_time{};
  /// Keep the last model and update after the report was accepted, so that nothing is downloaded or
  /// trained twice for a server that lost its round. False: memory for one task at a time only,
  /// which is what a host of thousands of devices wants.
  bool keep_finished_work = true;
  /// Keep at least the model where finished work is not kept: the next may come as a difference to it.
  bool keep_model = false;
  RequiredPrivacy required_privacy = {};
  std::shared_ptr<const privacy::DeviceCredentials> credentials = nullptr;  ///< or null: none
  /// Of the last plan. A host of many devices on one thread gives them one, since they are sent one
  /// plan.
  std::shared_ptr<PlannedModel> planned = std::make_shared<PlannedModel>();
  /// Keys and seeds of secure sums.
  std::function<std::unique_ptr<privacy::SecretSource>(const AggregationRound&)> make_secrets =
      [](const AggregationRound&) { return privacy::system_secrets(); };
};

/// One device. Owns no socket, thread, clock, file or global generator. One thread at a time.
class Participant {
 public:
  explicit Participant(ParticipantOptions options);

  /// First call to make: asks to connect.
  void start(Time now, Actions& actions);
  void handle(Time now, Event event, Actions& actions);

  bool finished() const { return phase_ == Phase::kFinished; }
  /// Rounds in which this device's update was accepted.
  std::uint32_t rounds_accepted() const { return rounds_accepted_; }
  /// The last of them.
  std::optional<RoundNumber> last_accepted() const {
    return last_accepted_ ? std::optional(last_accepted_->second) : std::nullopt;
  }
  /// Likewise, of earlier processes too.
  const std::optional<RoundOfRun>& last_counted() const { return last_accepted_; }
  /// Set while it has no task and no connection and only waits for this moment. Its host may forget
  /// it till then, and begin a new one with `memory`.
  std::optional<Time> idle_until() const;
  ParticipantMemory memory() const;
  /// What Save carries, now.
  SavedWork saved_work() const;
  /// Replaces bytes that it holds by equal ones that lie elsewhere (Spool::stored).
  void use_stored(const std::function<SharedBytes(const SharedBytes&)>& stored);
  /// Payload that crossed the network in this process, of models and of updates.
  struct Traffic {
    std::uint64_t model_bytes = 0;   ///< received, each byte of a blob once as a rule
    std::uint64_t update_bytes = 0;  ///< sent
  };
  const Traffic& traffic() const { return traffic_; }
  /// Whether it holds a task whose outcome is open.
  bool has_task() const { return task_ && !task_->decided && task_->stage != Stage::kDeclined; }
  /// What it is doing, in a word: "waiting", "downloading", "training", ...
  std::string_view phase_name() const;

 private:
  enum class Phase : std::uint8_t {
    kDisconnected,  ///< waiting to connect again, or connecting
    kGreeting,      ///< Hello sent
    kCheckingIn,    ///< CheckIn sent
    kWaiting,       ///< in the server's pool
    kPausing,       ///< told when to come back; connected or not
    kDownloading,
    kTraining,
    kUploading,
    kAggregating,  ///< in a secure sum, before or behind the upload
    kFinished,
  };
  enum class Link : std::uint8_t { kDown, kDialling, kUp };

  /// How far the last assignment came. Independent of the connection: work goes on without one.
  enum class Stage : std::uint8_t { kDownloading, kTraining, kTrained, kDeclined };
  struct MaskedUpdate {
    SharedBytes bytes;
    Digest digest;
  };
  struct Task {
    Assignment assignment;
    Stage stage = Stage::kDownloading;
    std::optional<Time> report_by;  ///< the round's deadline, if one is known
    std::optional<BlobDownload> download;
    std::optional<ModelDelta> delta;  ///< what is downloaded, if not the model itself
    bool download_was_wrong = false;  ///< came with another hash once
    bool started = false;             ///< training was asked for
    bool resting = false;             ///< and asked to pause
    bool in_doubt = false;            ///< of an earlier process, and its round may be over
    std::optional<Time> give_up_at;   ///< while it computes: the owner's patience ends
    Duration patience_left{};         ///< while it rests
    std::uint8_t starts = 0;          ///< SavedTask::starts
    std::uint32_t steps_done = 0;
    std::uint32_t steps_total = 0;
    std::optional<TrainedUpdate> trained;
    Duration train_time{};
    bool reported = false;  ///< at least once
    bool decided = false;   ///< accepted or rejected
    std::optional<privacy::SecAggDevice> aggregation;
    bool masking = false;
    std::optional<MaskedUpdate> masked;
    std::string declined;       ///< why
    bool decline_told = false;  ///< to the server
  };
  /// What every handler works with: the time of the event and the list its actions go to.
  struct Step {
    Time now;
    Actions& actions;
  };

  // participant.cpp: connection, check-in, pauses, clocks
  void on(Step, Connected);
  void on(Step, ConnectionLost);
  void on(Step, Received);
  void on(Step, TimerFired);
  void on(Step, StopRequested);
  void on_message(Step, Welcome);
  void on_message(Step, Refusal);
  void on_message(Step, Waiting);
  void on_message(Step, RetryLater);
  void on_message(Step, StatusReply);
  void check_in(Step);
  void pause(Step, RetryWindow window);
  void forget_connection();
  void drop_link(Step);
  void break_link(Step, std::string reason);
  void violation(Step, std::string reason);
  void finish(Step, bool ok, std::string reason);
  void settle(Step, bool heard);
  double draw();

  // participant_conditions.cpp: what the owner allows
  void on(Step, ConditionsChanged);
  bool may_connect() const;
  void note_permissions(Step, const Permissions& before) const;
  void hang_up(Step);
  void follow_conditions(Step);

  // participant_limits.cpp: what a server can ask of the device at most
  bool may_take_task(Step);
  void limit_training(Step);
  void pause_limit(Step);
  void give_up_training(Step);
  void ignore(Step, std::string_view message);

  // participant_saved.cpp: what outlives a process
  void restore(SavedWork saved);
  void restore_task(SavedTask saved, std::optional<SavedDownload>& download);
  void check_restored(Step);
  bool is_saved(const SavedWork& now) const;
  void save(Step, std::size_t first);
  SharedBytes residual_of(const Assignment& assignment) const;
  void keep_residual();
  void restore_residual();
  void forget_residuals_before(const Assignment& assignment);

  // participant_task.cpp: from assignment to verdict
  void on(Step, TrainingProgress);
  void on(Step, TrainingFinished);
  void on_message(Step, Assignment);
  void on_message(Step, UploadGrant);
  void on_message(Step, ProgressReply);
  void on_message(Step, ReportAccepted);
  void on_message(Step, ReportRejected);
  void on_message(Step, RoundOver);
  void begin_task(Step);
  void resume_task(Step);
  void begin_training(Step);
  void start_training(Step);
  void report(Step);
  void send_report(Step);
  void ask_for_verdict(Step);
  void send_progress(Step);
  void decline(Step, std::string reason);
  void forget_task(Step);
  void end_task(Step, RetryWindow retry);
  void drop_finished_work();
  bool awaits_verdict(RunId run, RoundNumber round) const;
  bool is_task(RunId run, RoundNumber round) const;
  bool working() const;
  Result<void> acceptable(const Assignment& assignment);
  Result<void> may_train_again() const;
  Result<void> suitable(const Assignment& assignment);
  Result<void> plan_model(const TrainingPlan& plan);

  // participant_download.cpp: the model comes, whole or as a difference
  void on_message(Step, BlobChunk);
  void on_message(Step, BlobMissing);
  void choose_download();
  void begin_download(Step);
  void request_pieces(Step);
  void finish_download(Step);
  Result<SharedBytes> apply_delta(const SharedBytes& delta) const;
  void fetch_whole_model(Step, std::string_view reason);
  std::uint32_t piece_bytes() const;
  std::uint64_t bytes_under_way() const;
  std::string what_is_lost() const;

  // participant_aggregation.cpp: the steps of a secure sum
  void on(Step, UpdateMasked);
  void on_message(Step, NeighbourKeys);
  void on_message(Step, PeerShares);
  void on_message(Step, SurvivorSet);
  void on_message(Step, SurvivorConfirmations);
  void advertise(Step);
  void report_masked(Step);
  void restart_aggregation(const AggregationId& id);
  void leave_aggregation(Step, const Error& error);
  bool aggregating(const AggregationRound& round) const;
  Result<void> private_enough(const Assignment& assignment) const;
  bool has_revealed(const Assignment& assignment) const;
  bool has_released(const Assignment& assignment) const;
  const RoundOfRun* revealed_in(RunId run) const;
  bool may_make_keys(const AggregationRound& round);
  void send_unmask(Step, Unmask message);

  ParticipantOptions options_;
  Phase phase_ = Phase::kDisconnected;
  Link link_ = Link::kDown;
  std::uint32_t rounds_accepted_ = 0;
  std::uint32_t draws_ = 0;     ///< of jitter, each from a stream of its own
  std::uint32_t failures_ = 0;  ///< connections lost since one was of use (drop_link)
  std::uint32_t violations_ =
      0;                        ///< connections broken for a bad message since the last orderly end
  std::uint32_t declines_ = 0;  ///< tasks given up since the last accepted report

  // this connection
  std::uint32_t max_chunk_bytes_ = 0;
  Duration heartbeat_interval_{};
  std::uint32_t stale_requests_ =
      0;  ///< unanswered, of downloads given up: their answers come first
  bool progress_unanswered_ = false;
  Time connected_at_{};
  std::uint64_t came_across_ = 0;  ///< payload bytes that were of use, in either direction
  std::uint32_t ignored_ = 0;  ///< messages that made no sense
  std::optional<Time> progress_sent_;
  std::optional<BlobUpload> upload_;

  // the work
  std::optional<Task> task_;
  std::optional<SavedModel> model_;  ///< the last that was trained on
  /// Of a task that is void: the next round may ask for the same model.
  std::optional<BlobDownload> partial_;
  static constexpr double kTasksAtOnce = 1000;
  double task_allowance_;  ///< new tasks that it takes now
  Time allowance_from_{};  ///< since when that grows again
  std::optional<RoundOfRun> last_accepted_;
  std::vector<AggregationRound> keyed_;  ///< as SavedWork
  std::vector<RoundOfRun> revealed_;
  std::optional<RoundOfRun> released_;  ///< as SavedWork
  ParticipantMemory residuals_;  ///< of which the residuals are kept here
  std::optional<SavedWork> last_saved_;

  // the link
  LinkRate rate_;
  Time transfer_mark_{};  ///< since when the bytes under way are
  Traffic traffic_;

  // deadlines, of which the earliest is the timer's
  std::optional<Time> retry_at_;   ///< connect or check in again
  std::optional<Time> answer_by_;  ///< the server owes an answer
  std::optional<Time> heartbeat_at_;
  std::optional<Time> recheck_at_;  ///< ask again whether the server still has us in its pool
  std::optional<Time> armed_at_;    ///< when the timer fires
};

}  // namespace covey::client
