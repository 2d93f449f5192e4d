#include "client/daemon/covey_client/program.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "server/daemon/kit.hpp"

namespace covey::client {
namespace {

/// How often conditions and data are looked at, where the owner has rules: six wake-ups a minute
/// cost no battery anything.
constexpr auto kLook = std::chrono::seconds(10);
/// And where the server is merely told of them.
constexpr auto kLookWithoutRules = std::chrono::seconds(60);
/// How long a run that is over is left alone, with --keep-running.
constexpr auto kAgain = std::chrono::hours(1);
/// No step of local training takes so long, on a device that anybody would train on.
constexpr auto kLongestStep = std::chrono::minutes(30);
/// From the signal to the end of the process, whatever still runs: what is on disk is whole at any
/// time.
constexpr unsigned kStopSeconds = 2;

// Only async-signal-safe calls.
extern "C" void end_now(int) { _exit(0); }

}  // namespace

Program::Program(Parts parts)
    : parts_(std::move(parts)),
      look_timer_(loop_, [this] { look_around(); }),
      watchdog_timer_(loop_, [this] { feed_watchdog(); }),
      again_timer_(loop_, [this] {
        if (const auto begun = begin(); !begun.ok()) on_finished({false, begun.error().message});
      }) {}

Result<std::unique_ptr<Program>> Program::make(Parts parts) {
  std::unique_ptr<Program> program(new Program(std::move(parts)));
  COVEY_TRY(program->begin());
  return program;
}

/// A device of the kit as it is now: certificates are renewed while a service runs.
Result<void> Program::begin() {
  const ProgramOptions& options = parts_.options;
  DeviceOptions device = options.device;
  COVEY_ASSIGN(device.kit, load_device_kit(options.kit));
  if (!options.server.empty()) device.kit.address = options.server;
  device.thread_starts = [priority = options.priority, log = parts_.log] {
    if (const auto set = set_background_priority(priority); !set.ok()) {
      log(LogLevel::kWarning, set.error().message);
    }
  };
  if (parts_.read_conditions) device.readings = parts_.read_conditions();
  DeviceEvents events;
  events.on_phase = [this](std::string_view phase) {
    tell_status();
    if (parts_.log && phase == "waiting" && !waited_) {
      parts_.log(LogLevel::kInfo, "checked in, waits for a round; examples: " +
                                      std::to_string(parts_.data.num_examples()));
    }
    waited_ = waited_ || phase == "waiting";
  };
  events.on_accepted = [this](RoundNumber) { on_accepted(); };
  events.on_finished = [this](const Finished& finished) {
    loop_.post([this, finished] { on_finished(finished); });  // it is the device that says so
  };
  device_.reset();  // before the next one opens the state directory
  COVEY_ASSIGN(device_, Device::make(loop_, std::move(device), parts_.data, parts_.log, events));
  examples_told_ = parts_.data.num_examples();
  look_timer_.set(loop_.now() + look_interval());
  device_->start();
  tell_status();
  return {};
}

Outcome Program::run() {
  loop_.on_termination([this](int) { stop(); });
  parts_.manager.tell("READY=1");
  feed_watchdog();
  const Time began = loop_.now();
  loop_.run();
  take_stock();
  outcome_.wall_s = seconds(loop_.now() - began);
  return outcome_;
}

void Program::stop() {
  stopping_ = true;
  parts_.manager.tell("STOPPING=1");
  log(LogLevel::kInfo, "stopping");
  struct sigaction action {};
  action.sa_handler = end_now;
  sigaction(SIGALRM, &action, nullptr);
  alarm(kStopSeconds);
  again_timer_.cancel();
  if (!device_ || device_->finished()) return loop_.stop();
  device_->stop();
}

void Program::on_accepted() {
  tell_status();
  if (parts_.options.once && !stopping_) {
    stopping_ = true;
    loop_.post([this] { device_->stop(); });  // not from within the device
  }
}

void Program::on_finished(const Finished& finished) {
  outcome_.finished = finished;
  log(finished.ok ? LogLevel::kInfo : LogLevel::kError, finished.reason);
  if (stopping_ || !parts_.options.keep_running) return loop_.stop();
  take_stock();
  device_.reset();
  again_timer_.set(loop_.now() + kAgain);
  parts_.manager.tell("STATUS=this run is over; asks again within the hour");
}

Duration Program::look_interval() const {
  return parts_.options.device.rules == ConditionRules{} ? Duration(kLookWithoutRules) : kLook;
}

void Program::look_around() {
  look_timer_.set(loop_.now() + look_interval());
  if (!device_ || device_->finished()) return;
  if (parts_.read_conditions) device_->set_readings(parts_.read_conditions());
  if (const std::uint64_t examples = parts_.data.num_examples(); examples != examples_told_) {
    examples_told_ = examples;
    device_->data_changed();
  }
}

/// On the loop's thread, so that a loop that is stuck is noticed; a training that is stuck is told
/// by saying nothing.
void Program::feed_watchdog() {
  const auto interval = parts_.manager.watchdog();
  if (!interval) return;
  const Time now = loop_.now();
  watchdog_timer_.set(now + *interval / 2);
  if (training_moves(now)) {
    parts_.manager.tell("WATCHDOG=1");
  } else {
    log(LogLevel::kError, "training makes no steps; the service manager is left to restart this");
  }
}

bool Program::training_moves(Time now) {
  const auto steps = device_ ? device_->training_steps() : std::nullopt;
  if (!steps || steps != steps_seen_) steps_moved_at_ = now;
  steps_seen_ = steps;
  return now - steps_moved_at_ < kLongestStep;
}

void Program::tell_status() {
  if (!device_) return;
  std::string status = fmt::format("STATUS={}, {} updates counted", device_->phase(),
                                   outcome_.rounds_accepted + device_->rounds_accepted());
  if (status == status_told_) return;
  parts_.manager.tell(status);
  status_told_ = std::move(status);
}

/// What this device did, before it goes.
void Program::take_stock() {
  if (!device_) return;
  outcome_.rounds_accepted += device_->rounds_accepted();
  outcome_.bytes_sent += device_->bytes_sent();
  outcome_.bytes_received += device_->bytes_received();
  outcome_.transfers += device_->transfers();
  device_.reset();
}

}  // namespace covey::client
