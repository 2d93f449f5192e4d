#include "client/capi/embedded_client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <covey/client/local_data_spec.hpp>
#include <utility>

#include "client/daemon/background_priority.hpp"
#include "client/daemon/covey_client/option_table.hpp"
#include "server/daemon/kit.hpp"

namespace covey::client {
namespace {

using namespace std::chrono_literals;

/// How often data and the system's conditions are looked at.
constexpr auto kLook = 10s;
/// From a wish to stop until it is over, whatever the server answers.
constexpr auto kStopPatience = 2s;
/// What belongs to a program and not to a part of one.
constexpr std::array<std::string_view, 7> kOfPrograms = {
    "config", "self-test", "version", "help", "json", "verbose", "keep-running"};

/// Between steps: short where bytes are on their way, long where a server will say something some
/// time.
struct Pace {
  std::string_view phase;
  std::uint32_t ms;
};
constexpr std::array<Pace, 5> kPaces = {{{"connecting", 50},
                                         {"training", 100},
                                         {"waiting", 200},
                                         {"pausing", 500},
                                         {"disconnected", 1000}}};
constexpr std::uint32_t kBusyMs = 10, kRestingMs = 5000;

}  // namespace

EmbeddedClient::EmbeddedClient() = default;

EmbeddedClient::~EmbeddedClient() {
  device_.reset();  // its thread ends before what it works on
}

Result<std::unique_ptr<EmbeddedClient>> EmbeddedClient::make() {
  std::unique_ptr<EmbeddedClient> client(new EmbeddedClient);
  EmbeddedClient* self = client.get();
  COVEY_ASSIGN(client->wakeup_, transport::Wakeup::make(client->loop_, [self] {
                 if (self->stop_requested_) self->begin_stop();
               }));
  client->look_timer_.emplace(client->loop_, [self] { self->look_around(); });
  client->stop_timer_.emplace(client->loop_, [self] { self->conclude({true, "stopped"}); });
  return client;
}

bool EmbeddedClient::configurable() {
  const std::lock_guard lock(mutex_);
  return !data_ && !begun_;
}

Result<void> EmbeddedClient::set_option(std::string_view name, std::string_view value) {
  if (name == "stream") {
    COVEY_TRY(parse_local_data(value.empty() ? "stream:x" : fmt::format("stream:x,{}", value)));
    stream_options_ = value;
    return {};
  }
  if (name == "conditions") {
    if (value != "host" && value != "system") {
      return invalid_argument(fmt::format("conditions: \"{}\" must be host or system", value));
    }
    read_system_ = value == "system";
    return {};
  }
  const Option* option = find_option(name);
  const bool ours = option != nullptr && std::ranges::find(kOfPrograms, name) == kOfPrograms.end();
  if (!ours) return invalid_argument(fmt::format("there is no option \"{}\"", name));
  if (option->value == nullptr && value != "true" && value != "false") {
    return invalid_argument(fmt::format("{}: \"{}\" must be true or false", name, value));
  }
  if (name == "data") COVEY_TRY(parse_local_data(value));
  ProgramOptions changed = options_;
  if (const auto set = option->set(value, changed); !set.ok()) {
    return invalid_argument(fmt::format("{}: \"{}\" {}", name, value, set.error().message));
  }
  options_ = std::move(changed);
  return {};
}

// ---- examples

Result<HostData*> EmbeddedClient::data() {
  const std::lock_guard lock(mutex_);
  if (data_) return data_.get();
  LocalDataSpec spec;
  if (!options_.data.empty()) {
    COVEY_ASSIGN(spec, parse_local_data(options_.data));
  } else {
    COVEY_ASSIGN(spec, parse_local_data(stream_options_.empty()
                                            ? "stream:x"
                                            : fmt::format("stream:x,{}", stream_options_)));
    const std::string& state = options_.device.state_directory;
    spec.path = state.empty() ? "" : state + "/examples";
  }
  COVEY_ASSIGN(auto opened, open_local_data(spec, [this](std::string_view text) {
                 log_later(LogLevel::kWarning, text);
               }));
  data_ = std::make_unique<HostData>(std::move(opened));
  return data_.get();
}

Result<ExampleStream*> EmbeddedClient::stream() {
  COVEY_ASSIGN(HostData* const data, this->data());
  if (ExampleStream* stream = stream_of(data->behind())) return stream;
  return failed("examples cannot be added: the option data names files");
}

bool EmbeddedClient::takes_examples() {
  return options_.data.empty() || options_.data.starts_with("stream:");
}

Result<void> EmbeddedClient::add(std::span<const float> features, std::int32_t label) {
  COVEY_ASSIGN(ExampleStream* const stream, this->stream());
  COVEY_TRY(stream->add(features, label));
  examples_came();
  return {};
}

Result<void> EmbeddedClient::add_bytes(std::span<const std::uint8_t> features, std::int32_t label) {
  COVEY_ASSIGN(ExampleStream* const stream, this->stream());
  COVEY_TRY(stream->add_bytes(features, label));
  examples_came();
  return {};
}

Result<void> EmbeddedClient::set_examples(Result<models::DataSet> examples) {
  if (!examples.ok()) return examples.error();
  COVEY_ASSIGN(HostData* const data, this->data());
  data->set(examples->empty() ? nullptr
                              : std::make_shared<const models::DataSet>(std::move(*examples)));
  loop_.post([this] { look_around(); });
  return {};
}

Result<void> EmbeddedClient::clear_examples() {
  COVEY_ASSIGN(HostData* const data, this->data());
  data->set(nullptr);
  if (ExampleStream* stream = stream_of(data->behind())) COVEY_TRY(stream->clear());
  loop_.post([this] { look_around(); });
  return {};
}

/// A device that had nothing to train on is told at once, else the next look does: hosts may add a
/// thousand a second.
void EmbeddedClient::examples_came() {
  if (examples_told_ > 0 || looks_soon_.exchange(true)) return;
  loop_.post([this] {
    looks_soon_ = false;
    look_around();
  });
}

// ---- conditions

void EmbeddedClient::change_readings(const std::function<void(DeviceReadings&)>& change) {
  {
    const std::lock_guard lock(mutex_);
    change(given_readings_);
  }
  loop_.post([this] { tell_readings(); });
}

void EmbeddedClient::tell_readings() {
  if (!device_ || device_->finished()) return;
  DeviceReadings readings = system_ ? system_->read() : DeviceReadings();
  DeviceReadings given;
  {
    const std::lock_guard lock(mutex_);  // not while the device is told: it may call the host
    given = given_readings_;
  }
  const auto prefer = [](auto& reading, const auto& said) {
    if (said) reading = said;
  };
  prefer(readings.charging, given.charging);
  prefer(readings.battery, given.battery);
  prefer(readings.metered, given.metered);
  prefer(readings.temperature_c, given.temperature_c);
  prefer(readings.load, given.load);
  prefer(readings.free_memory_bytes, given.free_memory_bytes);
  prefer(readings.free_disk_bytes, given.free_disk_bytes);
  prefer(readings.minute_of_day, given.minute_of_day);
  device_->set_readings(readings);
}

void EmbeddedClient::look_around() {
  if (!device_ || device_->finished()) return;
  look_timer_->set(loop_.now() + kLook);
  tell_readings();
  const std::uint64_t examples = data_->num_examples();
  if (examples == examples_told_) return;
  examples_told_ = examples;
  device_->data_changed();
}

// ---- life

Result<void> EmbeddedClient::begin() {
  if (begun_) return {};
  if (options_.kit.empty()) return invalid_argument("the option kit names no directory");
  COVEY_ASSIGN(HostData* const data, this->data());
  DeviceOptions device = options_.device;
  COVEY_ASSIGN(device.kit, load_device_kit(options_.kit));
  if (!options_.server.empty()) device.kit.address = options_.server;
  device.thread_starts = [this, priority = options_.priority] {
    if (const auto set = set_background_priority(priority); !set.ok()) {
      log(LogLevel::kWarning, set.error().message);
    }
  };
  DeviceEvents events;
  events.on_phase = [this](std::string_view phase) {
    take_stock();
    if (callbacks.phase) callbacks.phase(std::string(phase));
  };
  events.on_accepted = [this](RoundNumber round) {
    take_stock();
    examples_told_ = data_->num_examples();  // which the device has told already
    if (callbacks.round) callbacks.round(value_of(round));
    if (options_.once) stop();
  };
  events.on_finished = [this](const Finished& finished) {
    loop_.post([this, finished] { conclude(finished); });  // it is the device that says so
  };
  COVEY_ASSIGN(device_,
               Device::make(
                   loop_, std::move(device), *data,
                   [this](LogLevel level, std::string_view text) { log(level, text); }, events));
  if (read_system_) system_.emplace(LinuxConditions::Options{options_.device.state_directory});
  {
    const std::lock_guard lock(mutex_);
    begun_ = true;
  }
  examples_told_ = data->num_examples();
  look_around();
  device_->start();
  take_stock();
  return {};
}

void EmbeddedClient::begin_stop() {
  if (finished_) return;
  if (!device_ || device_->finished()) return conclude({true, "stopped"});
  stop_timer_->set(loop_.now() + kStopPatience);
  device_->stop();
}

void EmbeddedClient::conclude(const Finished& finished) {
  if (finished_) return;
  finished_ = finished;
  take_stock();
  look_timer_->cancel();
  stop_timer_->cancel();
  device_.reset();
  {
    const std::lock_guard lock(mutex_);
    status_.finished = finished;
    status_.phase = "finished";
  }
  if (callbacks.finished) callbacks.finished(finished.ok, finished.reason);
  loop_.stop();
}

void EmbeddedClient::stop() noexcept {
  stop_requested_ = true;
  wakeup_->wake();
}

/// On the loop's thread at once, from elsewhere a moment later on it.
void EmbeddedClient::log(LogLevel level, std::string_view text) {
  if (loop_thread_.load() != std::this_thread::get_id()) return log_later(level, text);
  if (callbacks.log) callbacks.log(level, std::string(text));
}

/// For those who hold a lock that a callback may want.
void EmbeddedClient::log_later(LogLevel level, std::string_view text) {
  loop_.post([this, level, text = std::string(text)] {
    if (callbacks.log) callbacks.log(level, text);
  });
}

void EmbeddedClient::take_stock() {
  if (!device_) return;
  const std::lock_guard lock(mutex_);
  status_.phase = device_->phase();
  status_.rounds_accepted = device_->rounds_accepted();
  status_.bytes_sent = device_->bytes_sent();
  status_.bytes_received = device_->bytes_received();
}

EmbeddedClient::Status EmbeddedClient::status() {
  Status status;
  HostData* data = nullptr;
  {
    const std::lock_guard lock(mutex_);
    status = status_;
    data = data_.get();
  }
  if (data != nullptr) status.num_examples = data->num_examples();
  return status;
}

std::uint32_t EmbeddedClient::pause_ms() const {
  std::uint32_t pause = kBusyMs;
  if (device_) {
    const auto phase = device_->phase();
    const auto pace = std::ranges::find(kPaces, phase, &Pace::phase);
    if (pace != kPaces.end()) pause = pace->ms;
    if (phase == "resting") pause = kRestingMs;
  }
  if (const auto next = loop_.next_timer()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - loop_.now()).count();
    pause = static_cast<std::uint32_t>(std::clamp<std::int64_t>(left, 1, pause));
  }
  return pause;
}

namespace {

/// Says on which thread callbacks are called for as long as it lives.
struct LoopThread {
  explicit LoopThread(std::atomic<std::thread::id>& id) : id_(id) {
    id_ = std::this_thread::get_id();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;
  ~LoopThread() { id_ = std::thread::id(); }
  std::atomic<std::thread::id>& id_;
};

}  // namespace

Result<EmbeddedClient::State> EmbeddedClient::step(std::uint32_t& next_ms) {
  next_ms = 0;
  const LoopThread here(loop_thread_);
  if (!finished_) {
    COVEY_TRY(begin());
    loop_.poll();
  }
  if (finished_) return finished_->ok ? State::kFinished : State::kRefused;
  next_ms = pause_ms();
  return State::kRunning;
}

Result<EmbeddedClient::State> EmbeddedClient::run() {
  const LoopThread here(loop_thread_);
  if (!finished_) {
    COVEY_TRY(begin());
    loop_.run();
  }
  return finished_->ok ? State::kFinished : State::kRefused;
}

}  // namespace covey::client
