#include "fleet_faults.hpp"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <covey/proto/codec.hpp>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "fleet.hpp"

// What goes wrong in a simulated fleet (fault_plan.hpp), and what has to hold all the same
// (invariants.hpp).
namespace covey::simulation {
namespace {

using namespace std::chrono_literals;

// A daemon that ended with an error is started again by its init system.
constexpr Duration kServiceRestart = 30s;
// The longest that anybody waits by himself: a device that starts again (an hour), with a margin of
// as much.
constexpr Duration kLongestIdle = 2h;
// A phone that is away may be so until the day after tomorrow.
constexpr Duration kLongestAbsence = 72h;
// A forged retry window keeps a device away for a week (the participant allows no more).
constexpr Duration kLongestForgedPause = 24h * 8;

Result<ClientMessage> decode(const proto::Encoded& encoded, const ClientMessage&) {
  return proto::decode_client_message(encoded.header, encoded.payload);
}
Result<ServerMessage> decode(const proto::Encoded& encoded, const ServerMessage&) {
  return proto::decode_server_message(encoded.header, encoded.payload);
}

/// Within which a fleet without faults commits a round; 0 where its limits may end it.
Duration recovery_time(const RunConfig& config, bool always_online, bool forged) {
  const bool limited =
      config.selection.max_participations > 0 || config.privacy.max_participations > 0;
  constexpr double kHopeless = 0.5;  // with more drop-outs than this a quorum is a matter of luck
  if (limited || config.fleet.dropout > kHopeless) return {};
  Duration longest = kLongestIdle + 8 * from_seconds(config.selection.selection_timeout_s +
                                                     config.selection.round_deadline_s +
                                                     config.selection.retry_max_s);
  if (!always_online) longest += kLongestAbsence;
  if (forged) longest += kLongestForgedPause;
  return longest;
}

}  // namespace

Result<std::unique_ptr<TemporaryDirectory>> TemporaryDirectory::make() {
  // In memory where there is such a folder: a simulated disk need not survive a real power loss,
  // and waiting for a real one would take most of a run's time.
  std::error_code error;
  for (const std::filesystem::path& parent :
       {std::filesystem::path("/dev/shm"), std::filesystem::temp_directory_path(error)}) {
    std::string path = (parent / "covey-faults-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) continue;
    return std::unique_ptr<TemporaryDirectory>(new TemporaryDirectory(std::move(path)));
  }
  return failed(std::string("cannot make a temporary folder for the simulated server's store: ") +
                (error ? error.message() : std::strerror(errno)));
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Result<void> Fleet::prepare_faults() {
  const RunConfig& config = experiment_.config;
  const bool faulty = config.faults.seed != 0;
  if (faulty || options_.check_invariants) {
    const bool forged = config.faults.corrupt > 0 || config.faults.truncate > 0;
    const bool honest = !faulty || !FaultPlan(config.faults).lies();
    invariants_ = std::make_unique<Invariants>(Invariants::Options{
        config, honest, recovery_time(config, models_.always_online(), faulty && forged)});
  }
  if (!faulty) return {};
  faults_ = std::make_unique<FleetFaults>(config.faults);
  COVEY_ASSIGN(faults_->directory, TemporaryDirectory::make());
  COVEY_ASSIGN(faults_->store, server::Store::open(faults_->directory->path() + "/store.sqlite"));
  COVEY_ASSIGN(server_->spool, server::make_file_spool(faults_->directory->path() + "/spool"));
  return faults_->store->begin_run(
      {static_cast<RunId>(RandomStream(config.seed, RandomPurpose::kRunId).next_u64()),
       to_toml(config), RoundNumber{}, server_->coordinator.model(), server_->pipeline.state()});
}

// ---- messages

template <typename Sent>
void Fleet::deliver(Time at, Sent event) {
  if (striking()) return deliver_badly(at, std::move(event));
  queue_.push(at, std::move(event));
}
template void Fleet::deliver(Time, ToServer);
template void Fleet::deliver(Time, ToDevice);

template <typename Sent>
void Fleet::deliver_badly(Time at, Sent event) {
  FaultPlan& plan = faults_->plan;
  constexpr bool kUp = std::is_same_v<Sent, ToServer>;
  const DeviceIndex index = event.device;
  const ConnectionId connection = event.connection;
  const MessageFate fate = plan.message();
  Device& device = *devices_[index];
  FaultFigures& figures = result_.faults;
  figures.lost += fate.lost;
  figures.cut += fate.cut_behind && !fate.lost;
  figures.late += fate.delay > Duration{};
  if (!fate.lost) {
    figures.repeated += fate.twice;
    figures.overtaken += fate.overtaken;
    figures.damaged += fate.damage != Damage::kNone;
  }
  if (fate.delay > Duration{}) {
    (kUp ? device.up : device.down).hold(fate.delay);
    at += fate.delay;
  }
  if (fate.lost || fate.cut_behind) {
    const Time ends = at + Duration(fate.lost ? 0 : 1);
    queue_.push(ends, LinkDown{index, connection, true});
    queue_.push(ends, LinkDown{index, connection, false});
  }
  maybe_crash(index);
  if (fate.lost) return;
  using Message = std::decay_t<decltype(*event.message)>;
  if (fate.twice) {
    queue_.push(at + fate.lag, Sent{index, connection, std::make_unique<Message>(*event.message)});
  }
  if (fate.damage != Damage::kNone) {
    proto::Encoded encoded = proto::encode(*event.message);
    plan.damage(fate.damage, encoded);
    auto decoded = decode(encoded, *event.message);
    if (decoded.ok()) {
      *event.message = std::move(*decoded);
    } else {
      event.message = nullptr;
    }
  }
  queue_.push(fate.overtaken ? at + fate.lag : at, std::move(event));
}

/// What does not decode: as Driver::on_frame of the daemon does.
void Fleet::drop_damaged(const ToServer& event) {
  send_down(event.connection, Refusal{RefusalReason::kProtocol, "the message does not decode"});
  close_from_server(event.connection);
  tell_server(server::DeviceGone{event.connection});
}

/// As the client's driver does.
void Fleet::drop_damaged(const ToDevice& event) {
  hang_up(event.device);
  tell_device(event.device, client::ConnectionLost{"the server's message does not decode"});
}

// ---- devices

void Fleet::maybe_crash(DeviceIndex index) {
  const auto death = faults_->plan.device_crash();
  if (!death) return;
  queue_.push(now_ + death->after,
              DeviceCrash{index, devices_[index]->life, death->gone, death->noticed});
}

void Fleet::on(const DeviceCrash& event) {
  if (devices_[event.device] == nullptr || devices_[event.device]->life != event.life) return;
  cancel_training(event.device);
  if (event.noticed) cut(event.device, false);
  devices_[event.device].reset();
  held_models_.erase(event.device);
  ++faults_->reboots[event.device];
  ++result_.faults.device_crashes;
  wake_at(event.device, now_ + event.gone);
}

/// Refused, because of what became of a message on its way.
void Fleet::restart_finished(DeviceIndex index) {
  if (!finished_) wake_at(index, now_ + kServiceRestart);
}

Time Fleet::device_now(DeviceIndex index) const {
  if (!faults_) return now_;
  const double rate = faults_->plan.clock_rate(static_cast<ClientId>(index));
  if (rate == 1) return now_;
  return Time{} +
         Duration(std::llround(static_cast<double>(now_.time_since_epoch().count()) * rate));
}

/// When the device's clock shows that moment.
Time Fleet::true_time(DeviceIndex index, Time device_time) const {
  if (!faults_) return device_time;
  const double rate = faults_->plan.clock_rate(static_cast<ClientId>(index));
  if (rate == 1) return device_time;
  constexpr Duration kRounding{2};  // its timer fires when it is due by its own clock, not before
  const double shown = static_cast<double>(device_time.time_since_epoch().count());
  return Time{} + Duration(std::llround(shown / rate)) + kRounding;
}

// ---- the server

/// As the daemon does with the first upload of a round.
void Fleet::tidy_spool(const server::OpenUpload& action) {
  if (faults_->spool_oldest == action.oldest) return;
  server_->spool->keep_only(action.key.run, action.oldest);
  faults_->spool_oldest = action.oldest;
}

bool Fleet::disk_full() {
  const bool full = striking() && faults_->plan.disk_full();
  result_.faults.full_disks += full;
  return full;
}

/// How many of an event's actions are carried out before the server dies; SIZE_MAX: it lives.
std::size_t Fleet::actions_until_crash(std::size_t actions) {
  const auto some = [&](double share) {
    return static_cast<std::size_t>(share * static_cast<double>(actions + 1));
  };
  if (std::exchange(faults_->dies_announcing, false)) return some(faults_->plan.share_told());
  if (!striking()) return SIZE_MAX;
  const auto share = faults_->plan.server_crash();
  return share ? some(*share) : SIZE_MAX;
}

/// Whatever was not durable is gone, and every connection breaks.
void Fleet::crash_server() {
  ++result_.faults.server_crashes;
  wasted_s_ += std::exchange(summed_s_, 0);
  server_.reset();
  faults_->spool_oldest.reset();
  if (!faults_->plan.spool_survives()) {  // as on a disk that is no disk
    std::error_code ignored;
    std::filesystem::remove_all(faults_->directory->path() + "/spool", ignored);
  }
  faults_->store.reset();
  faults_->dies_announcing = false;
  invariants_->crashed();
  ++server_timer_generation_;
  for (DeviceIndex i = 0; i < devices_.size(); ++i) {
    records_[i].server_connection = {};
    const Device* device = devices_[i].get();
    if (device == nullptr || !device->connection) continue;
    queue_.push(now_ + device->traits.latency, LinkDown{i, *device->connection, false});
  }
  queue_.push(now_ + faults_->plan.server_downtime(), ServerBoot{});
}

Result<void> Fleet::raise_server() {
  COVEY_ASSIGN(faults_->store, server::Store::open(faults_->directory->path() + "/store.sqlite"));
  COVEY_ASSIGN(const auto standing,
               server::restore(*faults_->store, [] { return server::StoredRun{}; }));
  COVEY_ASSIGN(server_, boot_server_(standing));
  COVEY_ASSIGN(server_->spool, server::make_file_spool(faults_->directory->path() + "/spool"));
  invariants_->booted(standing.run, standing.rounds, standing.participations,
                      server_->pipeline.privacy_status());
  publish_forgotten(standing);
  return {};
}

/// Rounds that ended without anybody having been shown them.
void Fleet::publish_forgotten(const server::StoredStanding& standing) {
  for (const RoundMetrics& round : server::published_rounds(standing, experiment_.config, true)) {
    const bool shown = std::ranges::any_of(result_.rounds, [&](const RoundMetrics& other) {
      return other.round == round.round && other.committed == round.committed &&
             other.started == round.started;
    });
    if (!shown) publish(round);
  }
}

void Fleet::on(const ServerBoot&) {
  if (const auto raised = raise_server(); !raised.ok()) {
    internal_error_ = with_context("the server did not start again", raised.error());
    return;
  }
  server::Actions actions;
  server_->coordinator.start(now_, actions);
  carry_out(actions);
}

std::optional<server::Event> Fleet::commit_round(const server::CommitRound& action) {
  const RoundNumber round = action.metrics.round;
  if (invariants_) invariants_->committing(action);
  if (!faults_) {
    if (invariants_) invariants_->stored();
    return server::RoundStored{round, {}};
  }
  if (disk_full()) return server::RoundStored{round, failed("no space left on device")};
  const CommitCrash crash = striking() ? faults_->plan.commit_crash() : CommitCrash::kNever;
  if (crash == CommitCrash::kBeforeStore) {
    crash_server();
    return std::nullopt;
  }
  server::Store& store = *faults_->store;
  auto stored = action.model ? store.commit_round(
                                   action.metrics, *action.model, server_->pipeline.state(),
                                   experiment_.config.server.keep_snapshots, action.participants)
                             : store.record_abandoned(action.metrics);
  if (stored.ok()) {
    invariants_->stored();
    faults_->committed = invariants_->durable();
  }
  if (crash == CommitCrash::kBehindStore) {
    crash_server();
    return std::nullopt;
  }
  faults_->dies_announcing = crash == CommitCrash::kInAnnouncements;
  return server::RoundStored{round, std::move(stored)};
}

/// As the daemon keeps an evaluation, which comes behind its round's commit.
void Fleet::record_published(const RoundMetrics& metrics) {
  std::erase_if(result_.rounds, [&](const RoundMetrics& shown) {
    return metrics.committed && shown.committed && shown.round == metrics.round;
  });
  if (!metrics.accuracy || disk_full()) return;
  const auto stored =
      faults_->store->record_evaluation(metrics.round, *metrics.accuracy, metrics.loss.value_or(0));
  if (!stored.ok() && problem_of_round_.empty()) problem_of_round_ = stored.error().message;
}

// ---- what has to hold

void Fleet::check_progress() {
  if (server_) invariants_->elapsed(now_, !striking(), server_->coordinator);
  if (!invariants_->violation() || internal_error_) return;
  internal_error_ =
      failed(fmt::format("{:.3f} s into the run {}{}", seconds(now_.time_since_epoch()),
                         invariants_->violation()->message,
                         options_.replay.empty() ? "" : "\n  to repeat it: " + options_.replay));
}

/// The store holds what the run came to.
void Fleet::check_end() {
  const bool stands_still = !finished_ && result_.finished;
  if (internal_error_ || stands_still) return;
  if (faults_) {
    server_.reset();
    faults_->store.reset();
    if (const auto raised = raise_server(); !raised.ok()) {
      internal_error_ = with_context("the run's store cannot be read at its end", raised.error());
      return;
    }
  }
  check_progress();
}

}  // namespace covey::simulation
