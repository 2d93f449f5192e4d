#include <fmt/format.h>

#include <covey/assert.hpp>
#include <covey/server/round_coordinator.hpp>

#include "round_coordinator_state.hpp"
#include "status.hpp"

namespace covey::server {
namespace {

// A deadline of no length would fire for ever at one moment of virtual time.
constexpr Duration kShortestWait = std::chrono::milliseconds(10);

// A device that cannot be used now comes back in a minute or two, unless the run file asks for
// longer.
constexpr Duration kReliefMin = std::chrono::seconds(5);   // a disk is not emptied faster
constexpr Duration kReliefMax = std::chrono::seconds(20);
constexpr Duration kBusyMin = std::chrono::seconds(60);
constexpr Duration kBusyMax = std::chrono::seconds(120);

// A coordinator sends ahead what four chunks hold: enough to keep a connection full while the next
// grant travels, little enough that max_uploads windows stay small.
constexpr std::uint64_t kWindowChunks = 4;

// Bytes per second of a poor 2G link: a chunk is one message, so nothing is heard while it crawls.
constexpr double kSlowestLink = 4096;

SelectionSizes round_sizes(const CoordinatorOptions& options) {
  SelectionSizes sizes = selection_sizes(options.config.selection, options.population);
  if (options.config.privacy.max_participations > 0) {
    start_with_cohort(sizes, options.config.selection.over_selection);
  }
  // Without cohorts a round needs the buffer's updates, each of another device.
  if (options.config.asynchronous.enabled()) sizes.quorum = options.config.asynchronous.buffer;
  return sizes;
}

DeviceHistory::Limits limits_of(const RunConfig& config) {
  const std::uint32_t a = config.privacy.max_participations;
  const std::uint32_t b = config.selection.max_participations;
  return {a == 0 || b == 0 ? std::max(a, b) : std::min(a, b), config.selection.min_rounds_between};
}

Duration at_least(Duration shortest, double configured_s) {
  return std::max(shortest, from_seconds(configured_s));
}

}  // namespace

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kSelection:
      return "selection";
    case Phase::kConfiguration:
      return "configuration";
    case Phase::kReporting:
      return "reporting";
    case Phase::kCommit:
      return "commit";
    case Phase::kStopping:
      return "stopping";
    case Phase::kFinished:
      return "finished";
  }
  return "unknown";
}

RoundCoordinator::State::Times::Times(const RunConfig& config)
    : heartbeat(at_least(kShortestWait, config.selection.heartbeat_s)),
      selection_timeout(at_least(kShortestWait, config.selection.selection_timeout_s)),
      round_deadline(at_least(kShortestWait, config.selection.round_deadline_s)),
      chunk(from_seconds(config.server.chunk_bytes / kSlowestLink)) {
  retry.delay_min = at_least(Duration(0), config.selection.retry_min_s);
  retry.delay_max = std::max(retry.delay_min, from_seconds(config.selection.retry_max_s));
  relief = {std::max(retry.delay_min, kReliefMin), std::max(retry.delay_max, kReliefMax)};
  busy = {std::max(retry.delay_min, kBusyMin), std::max(retry.delay_max, kBusyMax)};
}

RoundCoordinator::State::State(CoordinatorOptions options_in, RunState state_in)
    : options(std::move(options_in)),
      times(options.config),
      sizes(round_sizes(options)),
      policy(selection_policy(options.config.selection.policy)),
      remembers(needs_history(policy)),
      upload_window(std::min<std::uint64_t>(
          UINT32_MAX,
          kWindowChunks * std::max<std::uint64_t>(options.config.server.chunk_bytes, 1))),
      run(state_in.run),
      committed(state_in.round),
      model(std::move(state_in.model)),
      model_digest(model.parameters.digest()),
      sent_digest(model.sent.digest()),
      slots(options.config.selection.max_uploads),
      buffer(options.config.asynchronous, sizes.goal),
      history(limits_of(options.config), {std::move(state_in.participations),
                                          std::move(state_in.last_rounds), state_in.round}),
      oort(options.config.selection) {
  metrics.round = committed;
  if (state_in.metrics) {
    metrics = *state_in.metrics;
    last_round = metrics.ended - metrics.started;
  }
  last_accuracy = metrics.accuracy;
  last_loss = metrics.loss;
  privacy = std::move(state_in.privacy);
  sum_clip = state_in.sum_clip;
}

RoundCoordinator::RoundCoordinator(CoordinatorOptions options, RunState state)
    : state_(std::make_unique<State>(std::move(options), std::move(state))) {}

RoundCoordinator::~RoundCoordinator() = default;
RoundCoordinator::RoundCoordinator(RoundCoordinator&&) noexcept = default;
RoundCoordinator& RoundCoordinator::operator=(RoundCoordinator&&) noexcept = default;

void RoundCoordinator::start(Time now, Actions& actions) {
  state_->clock = now;
  state_->start(now, actions);
  state_->settle(now, actions);
}

void RoundCoordinator::handle(Time now, Event event, Actions& actions) {
  state_->clock = now;
  std::visit([&](auto& e) { state_->on(now, e, actions); }, event);
  state_->settle(now, actions);
}

Phase RoundCoordinator::phase() const { return state_->phase; }
RoundNumber RoundCoordinator::committed_round() const { return state_->committed; }
const SharedBytes& RoundCoordinator::model() const {
  return state_->model.parameters;
}
const std::optional<PrivacyStatus>& RoundCoordinator::privacy_status() const {
  return state_->privacy;
}
std::string RoundCoordinator::status_json(Time now) const { return state_->status_json(now); }

// ---- selection and configuration

void RoundCoordinator::State::start(Time now, Actions& actions) {
  buffer.metrics.started = now;
  if (value_of(committed) == 0) return next_round(now, actions);
  // Behind the last committed round, whose evaluation may have been lost with the process.
  phase = Phase::kCommit;
  if (evaluation_due() && !metrics.accuracy) {
    awaiting = Awaiting::kEvaluation;
    actions.emplace_back(EvaluateModel{committed, model.parameters});
    return;
  }
  go_on(now, actions);
}

void RoundCoordinator::State::settle(Time now, Actions& actions) {
  if (asynchronous()) {
    settle_step(now, actions);
    return arm_timer(actions);
  }
  if (summing()) {
    settle_sum(now, actions);
  } else if (phase == Phase::kReporting) {
    if (cohort.undecided() == 0 || cohort.accepted() >= goal) closing = true;
    if (closing && outstanding == 0) close_reporting(now, actions);
  }
  if (phase == Phase::kSelection) try_start(now, actions);
  if (reporting()) pump_uploads(actions);
  arm_timer(actions);
}

void RoundCoordinator::State::next_round(Time now, Actions& actions) {
  if (asynchronous()) return begin_step(now, actions);
  enter_selection(now);
}

void RoundCoordinator::State::enter_selection(Time opens) {
  phase = Phase::kSelection;
  selection_opens = opens;
  selection_at = opens + times.selection_timeout;
}

void RoundCoordinator::State::try_start(Time now, Actions& actions) {
  if (selection_opens) {
    if (now < *selection_opens) return;
    selection_opens.reset();
  }
  if (roster.pool_size() >= start_at()) configure(now, actions);
}

void RoundCoordinator::State::selection_timed_out(Time now, Actions& actions) {
  if (used_up(actions)) return;
  // A draw among fewer would take each with a larger probability than its privacy is counted with.
  const PrivacyConfig& config = options.config.privacy;
  const bool wait_for_all = privacy && config.amplification && policy == SelectionPolicy::kUniform;
  if (roster.pool_size() >= (wait_for_all ? sizes.start_at : sizes.quorum)) {
    configure(now, actions);
    return;
  }
  if (wait_for_all && roster.pool_size() + barred.size() >= sizes.start_at) {
    finish({false, fmt::format("{} devices are barred, and the draw that privacy.amplification counts on "
                               "is from all of them",
                               barred.size())},
           RefusalReason::kRunFinished, actions);
    return;
  }
  actions.emplace_back(
      Note{fmt::format("round {} still waits for devices: {} are here, it needs {}",
                       value_of(round()), roster.pool_size(),
                       wait_for_all ? sizes.start_at : sizes.quorum)});
  selection_at = now + times.selection_timeout;
}

void RoundCoordinator::State::configure(Time now, Actions& actions) {
  phase = Phase::kConfiguration;
  selection_at.reset();
  selection_opens.reset();
  turned_away = 0;
  const std::size_t pool = roster.pool_size();
  goal = std::min(sizes.goal, pool);
  const auto clients =
      draw(cohort_size(goal, options.config.selection.over_selection, pool));
  if (policy == SelectionPolicy::kPoisson) goal = std::max<std::size_t>(clients.size(), 1);
  quorum = std::min(sizes.quorum, clients.size());
  new_version();
  cohort.begin(version, clients, now);
  slots.clear();
  closing = false;
  metrics = RoundMetrics{};
  metrics.round = round();
  metrics.started = now;
  deadline = now + times.round_deadline;
  begin_sum();
  actions.reserve(actions.size() + clients.size() + 2);
  actions.emplace_back(BeginSum{round()});
  for (Member& member : cohort.members()) {
    Connection* connection = roster.find_device(member.client);
    COVEY_ASSERT(connection != nullptr);  // the pool holds live connections only
    roster.leave_pool(*connection);
    member.variant = connection->variant;
    member.compressor = connection->compressor;
    assign(now, member, *connection, actions);
  }
  phase = Phase::kReporting;
  liveness_at = now + times.silence();
}

/// The current model, and what the devices of the round in progress do with it.
void RoundCoordinator::State::new_version() {
  round_plan = options.plan;
  round_plan.learning_rate =
      static_cast<float>(learning_rate_of(options.config, value_of(round())));  // by its schedule
  if (privacy) round_plan.privacy = privacy->plan;
  if (sum_clip) round_plan.secure_aggregation.clip = *sum_clip;
  auto made = std::make_shared<ModelVersion>(ModelVersion{round(), model, sent_digest, round_plan});
  // Old versions stay for those who work on them: no more of them than is needed.
  if (asynchronous() && !options.needs_base) made->model.parameters = {};
  version = std::move(made);
}

// ---- reporting

void RoundCoordinator::State::on(Time now, TimerFired&, Actions& actions) {
  timer.reset();
  if (asynchronous()) return on_step_timer(now, actions);
  if (phase == Phase::kSelection && selection_at && *selection_at <= now) {
    selection_timed_out(now, actions);
  } else if (phase == Phase::kReporting && deadline && *deadline <= now) {
    closing = true;
    deadline.reset();
    liveness_at.reset();
  } else if (phase == Phase::kReporting && liveness_at && *liveness_at <= now) {
    check_liveness(now, actions);
  } else if (phase == Phase::kCommit && store_again && *store_again <= now) {
    store_again.reset();
    actions.emplace_back(commit_action());
  }
}

void RoundCoordinator::State::close_stalled(Time now, Actions& actions) {
  for (const ClientId client : slots.stalled_since(now - times.stall())) {
    // Presumed dead: the device, if it lives, connects again and goes on at the byte where it
    // stopped.
    Connection* connection = roster.find_device(client);
    COVEY_ASSERT(connection != nullptr);  // a lost connection gives its slot back at once
    actions.emplace_back(Note{fmt::format("client {} stalled in its upload for round {}; closed",
                                          value_of(client), value_of(round()))});
    actions.emplace_back(Close{connection->id});
    disconnect(*connection);
  }
}

void RoundCoordinator::State::check_liveness(Time now, Actions& actions) {
  close_stalled(now, actions);
  const bool advertising =
      summing() && sum->step() == privacy::SecAggServer::Step::kAdvertise;
  const std::size_t here =
      advertising ? cohort.undecided() - unadvertised() : cohort.accepted();
  // Devices that have advertised live on and say so: they are not the ones that are waited for.
  const bool silent = advertising ? unadvertised_silent_since(now - times.silence())
                                  : cohort.all_silent_since(now - times.silence());
  if (here >= reports_needed() && silent) closing = true;
  liveness_at = now + times.heartbeat;
}

/// A device that declines, because its training failed, must not hold up the others: the quorum is of
/// those that did not. At least one report. Where the devices make the noise, fewer than the quorum would
/// bring less of it than is counted on.
std::size_t RoundCoordinator::State::reports_needed() const {
  const DeviceNoise noise = round_plan.privacy.noise;
  if (noise == DeviceNoise::kDiscreteGaussian || noise == DeviceNoise::kSkellam) {
    return std::max<std::size_t>(sizes.quorum, 1);
  }
  if (policy == SelectionPolicy::kPoisson && cohort.size() == 0) return 0;  // nobody was drawn
  return std::max<std::size_t>(std::min(quorum, cohort.size() - cohort.left()), 1);
}

void RoundCoordinator::State::end_reporting(Actions& actions) {
  deadline.reset();
  liveness_at.reset();
  step_at.reset();
  for (Member& member : cohort.members()) {
    if (!member.undecided()) continue;
    withdraw(member);
    drop_upload(member, actions);
    remember_missed(member);
  }
  slots.clear();
  closing = false;
  cohort.tally(metrics);
  phase = Phase::kCommit;
}

void RoundCoordinator::State::close_reporting(Time now, Actions& actions) {
  end_reporting(actions);
  if (cohort.accepted() >= reports_needed()) {
    awaiting = Awaiting::kStrategy;
    actions.emplace_back(ApplyStrategy{round(), nullptr});
    return;
  }
  actions.emplace_back(
      Note{fmt::format("round {} abandoned: {} of {} selected devices reported, it "
                       "needs {}",
                       value_of(round()), cohort.accepted(), cohort.size(), reports_needed())});
  commit(now, std::nullopt, actions);
}

// ---- at any time

void RoundCoordinator::State::arm_timer(Actions& actions) {
  std::optional<Time> earliest;
  for (const auto& due :
       {selection_at, selection_opens, deadline, liveness_at, step_at, store_again, step_due()}) {
    if (due && (!earliest || *due < *earliest)) earliest = due;
  }
  if (!earliest || earliest == timer) return;
  // Assignments end all the time. A timer that fires too early is cheaper than one that is always set.
  if (asynchronous() && timer && *timer <= *earliest) return;
  timer = earliest;
  actions.emplace_back(SetTimer{*earliest});
}

std::string RoundCoordinator::State::status_json(Time now) const {
  Status status;
  status.phase = phase;
  status.run = run;
  status.round = over() ? committed : round();
  status.committed_round = committed;
  status.num_rounds = options.config.num_rounds;
  status.attempt = attempt;
  status.connections = roster.connections();
  status.pool = roster.pool_size();
  status.start_at = start_at();
  if (asynchronous()) {
    add_step_status(status);
  } else if (cohort.round() == round()) {
    status.selected = cohort.size();
    status.accepted = cohort.accepted();
    status.rejected = cohort.rejected();
    for (const Member& member : cohort.members()) {
      const bool away = member.undecided() && roster.find_device(member.client) == nullptr;
      const bool out =
          member.state == MemberState::kLeft || member.state == MemberState::kMissed;
      if (away || out) ++status.dropped;
    }
  }
  status.uploading = slots.active();
  status.queued = slots.queued();
  status.accuracy = last_accuracy;
  status.loss = last_loss;
  status.model = model_digest;
  if (deadline) status.deadline_s = seconds(*deadline - now);
  if (summing()) status.secure_step = to_string(sum->step());
  if (privacy) status.epsilon = privacy->spent.epsilon;
  return to_json(status);
}

}  // namespace covey::server
