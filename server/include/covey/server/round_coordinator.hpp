#pragma once

#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/metrics.hpp>
#include <covey/privacy/private_release.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/offered_compressor.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// The server's side of the protocol as a state machine: events in, actions out, time is an input.
namespace covey::server {

class PlanVariants;

/// One update on its way in: the only key of an upload.
struct UploadKey {
  RunId run{};
  RoundNumber round{};
  ClientId client{};
  Digest blob;
  auto operator<=>(const UploadKey&) const = default;
};

enum class Role : std::uint8_t { kDevice, kOperator };

// ---- events
struct DeviceConnected {
  ConnectionId connection{};
  ClientId client{};
  Role role = Role::kDevice;
};
struct DeviceGone {
  ConnectionId connection{};
};
struct Received {
  ConnectionId connection{};
  ClientMessage message;
};
struct TimerFired {};
/// Answers OpenUpload: so many bytes of this upload are held already.
struct UploadOpened {
  UploadKey key;
  Result<std::uint64_t> offset;
};
/// Answers JudgeUpdate: counted into the sum, or why not.
struct UpdateJudged {
  UploadKey key;
  std::optional<std::pair<RejectReason, std::string>> rejection;
};
/// An upload could not be written (disk full) or read back. Behind a JudgeUpdate of the same key it
/// is that action's answer.
struct UploadFailed {
  UploadKey key;
  Error error;
};
/// How a device that holds an earlier model comes to one that is sent now.
struct ModelDifference {
  Digest model;      ///< that it leads to: `sent` or one of the variants
  ModelDelta delta;  ///< as the device is told of it
  SharedBytes bytes;
};
/// A model as the server keeps it and as devices are sent it.
struct EncodedModel {
  SharedBytes parameters;  ///< fp32: what is stored, evaluated and moved
  SharedBytes sent;        ///< as the plan's precision says; for fp32 the same bytes, unless
                           ///< server.model-compressor says otherwise
  /// As devices of each [client.class] are sent it; empty where no class has a plan of its own.
  std::vector<SharedBytes> variants = {};
  std::vector<ModelDifference> differences = {};

  /// `variant`: a number of PlanVariants.
  const SharedBytes& sent_to(std::uint32_t variant) const {
    return variant == 0 ? sent : variants[variant - 1];
  }
};
/// Where a run with differential privacy stands: what its devices are asked next, what was spent.
struct PrivacyStatus {
  PrivacyPlan plan;  ///< of the round to come
  privacy::PrivacySpent spent;
  double noise_multiplier = 0;
  bool allows_another = true;  ///< the budget lasts for one more round
  std::string guarantee = {};  ///< what (epsilon, delta) is said of
};
/// What a secure sum says of all its devices together.
struct SecureSumFigures {
  std::uint64_t examples = 0;
  std::uint64_t steps = 0;
  double train_loss = 0;  ///< mean, weighted by examples
  std::uint64_t clipped_coordinates = 0;
  std::uint32_t clipped_weights = 0;
  double rounding_error = 0;  ///< RoundMetrics::rounding_error
  double clip = 0;            ///< SecureAggregationPlan::clip of the next round
};
/// Answers ApplyStrategy.
struct StrategyApplied {
  RoundNumber round{};
  Result<EncodedModel> model;  ///< after the round
  std::optional<PrivacyStatus> privacy = std::nullopt;
  std::optional<SecureSumFigures> figures = std::nullopt;  ///< not under differential privacy
  std::optional<ClientId> culprit = std::nullopt;  ///< whose shares kept the sum from being unmasked
};
/// Answers CommitRound: it is durable now (or could not be made so, and will be tried again).
struct RoundStored {
  RoundNumber round{};
  Result<void> stored;
};
/// Answers EvaluateModel.
struct ModelEvaluated {
  RoundNumber round{};
  double accuracy = 0;
  double loss = 0;
};
struct StopRequested {};
using Event =
    std::variant<DeviceConnected, DeviceGone, Received, TimerFired, UploadOpened, UpdateJudged,
                 UploadFailed, StrategyApplied, RoundStored, ModelEvaluated, StopRequested>;

// ---- actions, to be carried out in order. OpenUpload, JudgeUpdate, ApplyStrategy, CommitRound and
// EvaluateModel are each answered by one event, at once or later; a round does not close while an
// OpenUpload or JudgeUpdate is unanswered.
struct Send {
  ConnectionId connection{};
  ServerMessage message;
};
/// Behind what was sent before. Its DeviceGone may follow or not.
struct Close {
  ConnectionId connection{};
};
/// One timer; a new one replaces it.
struct SetTimer {
  Time at{};
};
struct OpenUpload {
  UploadKey key;
  std::uint64_t size = 0;
  /// Uploads of rounds before this one are not needed any more (UploadSpool::keep_only).
  RoundNumber oldest{};
};
struct WriteUpload {
  UploadKey key;
  std::uint64_t offset = 0;
  SharedBytes payload;
};
struct DropUpload {
  UploadKey key;
};
/// Complete: verify its hash, decode, check, and add it to the round's sum (UpdatePipeline::judge).
struct JudgeUpdate {
  UploadKey key;
  Report report;
  // Asynchronous aggregation: how many rounds were committed since the model that this update began with,
  // and that model's fp32 parameters (empty: the strategy does not ask for them).
  std::uint32_t staleness = 0;
  SharedBytes base = {};
  std::uint32_t variant = 0;  ///< of the plan that the device was sent: a number of PlanVariants
  std::uint32_t compressor = 0;  ///< that it was asked for: a number of the plan's
};
/// Forget whatever was summed; a new round begins (UpdatePipeline::begin).
struct BeginSum {
  RoundNumber round{};
};
/// Move the model by the round's sum (UpdatePipeline::apply), which under secure aggregation is unmasked
/// first (UpdatePipeline::unmask).
struct ApplyStrategy {
  RoundNumber round{};
  std::shared_ptr<const privacy::UnmaskJob> unmask = nullptr;
};
/// Make the round durable: model, strategy state, metrics, in one transaction. An abandoned round
/// has no model and only leaves its metrics.
struct CommitRound {
  RoundMetrics metrics;
  std::optional<SharedBytes> model;
  std::vector<ClientId> participants = {};  ///< where limits on participation ask for them
};
struct EvaluateModel {
  RoundNumber round{};
  SharedBytes model;
};
/// A round's metrics are complete (after its evaluation, where there is one).
struct PublishMetrics {
  RoundMetrics metrics;
};
/// A fact for the log, in words.
struct Note {
  std::string text;
};
/// The run is over, or cannot go on.
struct RunFinished {
  bool ok = true;
  std::string reason;
};
using Action =
    std::variant<Send, Close, SetTimer, OpenUpload, WriteUpload, DropUpload, JudgeUpdate, BeginSum,
                 ApplyStrategy, CommitRound, EvaluateModel, PublishMetrics, Note, RunFinished>;
using Actions = std::vector<Action>;

/// Where the run stands when the coordinator starts: the initial model, or the last committed
/// round.
struct RunState {
  RunId run{};
  RoundNumber round{};  ///< last committed round; 0: none yet
  EncodedModel model;   ///< after that round
  /// That round's metrics, where it was evaluated also its accuracy. Without them it is evaluated again.
  std::optional<RoundMetrics> metrics = std::nullopt;
  std::optional<PrivacyStatus> privacy = std::nullopt;  ///< after that round
  std::optional<double> sum_clip = std::nullopt;  ///< SecureAggregationPlan::clip, where it adapts
  /// How many committed rounds each device was in, where limits on participation ask for it,
  std::map<ClientId, std::uint32_t> participations = {};
  /// and the last of them, where it is known.
  std::map<ClientId, RoundNumber> last_rounds = {};
};

struct CoordinatorOptions {
  RunConfig config;
  TrainingPlan plan;             ///< sent to every selected device
  /// How devices may send updates, by preference (those of a class of devices: `variants`); one that is
  /// masked has the size of the secure sum.
  std::vector<OfferedCompressor> compressors;
  std::uint32_t population = 0;  ///< devices of the run: what min-available-clients = 0 stands for
  std::size_t num_scalars = 0;   ///< that a report carries
  bool evaluates = true;         ///< the driver answers EvaluateModel
  /// A new name for every attempt at a secure sum, never given twice; only with secure aggregation.
  std::function<AggregationId()> make_aggregation_id = nullptr;
  /// What cohorts are drawn by; nothing: the run's seed, which devices may know. A draw that privacy is
  /// counted on has to be a secret.
  std::optional<std::uint64_t> selection_seed = std::nullopt;
  /// Whose certificates of identities count; where devices have them.
  std::optional<privacy::AuthorityKey> authority = std::nullopt;
  /// Asynchronous aggregation: the strategy asks what an update began with (SumStrategy::needs_base).
  bool needs_base = false;
  /// Where classes of devices have plans of their own; or null.
  std::shared_ptr<const PlanVariants> variants = nullptr;
};

/// The most devices that one round can have.
std::uint32_t largest_cohort(const SelectionConfig& config, std::uint32_t population);
/// Error where selection.max-participations or min-rounds-between leave too few devices to go on with.
Result<void> check_participation_limits(const RunConfig& config, std::uint32_t population);

enum class Phase : std::uint8_t {
  kSelection,      ///< devices check in until there are enough, or the timeout
  kConfiguration,  ///< the cohort is drawn and sent its assignments
  kReporting,  ///< until everyone reported, or the quorum at the deadline; a secure sum takes its steps
               ///< here, from keys to unmasking. Asynchronous aggregation is here all the time
  kCommit,     ///< the strategy is applied and the round made durable; then it is evaluated
  kStopping,
  kFinished,
};
std::string_view to_string(Phase phase);

/// Runs the rounds. Owns no socket, thread, clock, file or global generator. One thread at a time.
/// Memory: O(model) for the current model, O(small) per connection and per selected device.
/// Asynchronous aggregation (config.asynchronous) has no cohorts: a device is given work whenever a
/// place is free, and a round is what it takes until enough updates are there to move the model.
/// Memory then is O(model) for each model that somebody works on, max-staleness + 1 at most.
class RoundCoordinator {
 public:
  RoundCoordinator(CoordinatorOptions options, RunState state);
  ~RoundCoordinator();
  RoundCoordinator(RoundCoordinator&&) noexcept;
  RoundCoordinator& operator=(RoundCoordinator&&) noexcept;

  /// First call to make.
  void start(Time now, Actions& actions);
  void handle(Time now, Event event, Actions& actions);

  Phase phase() const;
  RoundNumber committed_round() const;
  /// fp32 parameters after the last committed round.
  const SharedBytes& model() const;
  /// After it; nothing without differential privacy.
  const std::optional<PrivacyStatus>& privacy_status() const;
  /// What `covey status` shows, as one JSON object.
  std::string status_json(Time now) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace covey::server
