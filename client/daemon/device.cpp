#include "client/daemon/device.hpp"

#include <covey/client/memory_estimate.hpp>
#include <covey/compressor_spec.hpp>
#include <random>
#include <utility>

#include "client/daemon/device_trainer.hpp"
#include "client/daemon/driver.hpp"

namespace covey::client {
namespace {

/// The pool of a single device lends the one trainer that the device keeps.
class BorrowedTrainer final : public Trainer {
 public:
  explicit BorrowedTrainer(Trainer& trainer) : trainer_(trainer) {}
  Result<TrainedUpdate> train(const TrainingTask& task, const TrainingControl& control) override {
    return trainer_.train(task, control);
  }

 private:
  Trainer& trainer_;
};

/// A driver with what a device of its own has: data, a trainer, a thread to train on, its owner's
/// rules.
class ConnectedDevice final : public Device {
 public:
  static Result<std::unique_ptr<Device>> make(transport::EventLoop& loop, DeviceOptions options,
                                              LocalData& data, Log log, DeviceEvents events) {
    transport::Dialer::Options dialing;
    dialing.address = options.kit.address;
    dialing.server_name = options.kit.server_name;
    dialing.tls = options.kit.tls;
    COVEY_ASSIGN(auto dialer, transport::Dialer::make(loop, dialing));
    auto device = std::make_unique<ConnectedDevice>(std::move(options), data, std::move(events));
    const DeviceOptions& own = device->options_;
    std::unique_ptr<Spool> spool;
    if (!own.state_directory.empty()) {
      COVEY_ASSIGN(spool, open_spool(own.state_directory, dialer->identity().client,
                                     own.max_state_bytes, log, &device->death_));
    }
    device->make_driver(loop, std::move(dialer), std::move(spool), std::move(log));
    return std::unique_ptr<Device>(std::move(device));
  }

  ConnectedDevice(DeviceOptions options, LocalData& data, DeviceEvents events)
      : options_(std::move(options)),
        data_(data),
        events_(std::move(events)),
        readings_(options_.readings),
        death_(options_.die_at),
        trainer_(data),
        trainers_([this] { return std::make_unique<BorrowedTrainer>(trainer_); },
                  [](Trainer&, ClientId) {}),
        workers_(1) {
    conditions_.agent_version = "covey/" COVEY_VERSION;
    conditions_.precisions = models::supported_precisions();
    conditions_.compressors = compressor_names();
    conditions_.device_class = options_.device_class;
    conditions_.num_examples = examples_to_tell();
    permissions_ = permissions_of(options_.rules, readings_, {});
    describe(readings_, conditions_);
  }

  void start() override {
    workers_.submit([priority = options_.thread_starts] {
      if (priority) priority();
    });
    driver_->start();
    // The process before this one may have died before it told the data.
    if (const auto last = driver_->last_counted()) {
      data_.update_counted(last->first, last->second);
      data_changed();
    }
  }
  void stop() override { driver_->stop(); }

  void set_readings(const DeviceReadings& readings) override {
    if (readings == readings_) return;
    readings_ = readings;
    permissions_ = permissions_of(options_.rules, readings_, permissions_);
    describe(readings_, conditions_);
    driver_->change_conditions(conditions_, permissions_);
  }

  void data_changed() override {
    conditions_.num_examples = examples_to_tell();
    driver_->change_conditions(conditions_, permissions_);
  }

  std::string_view phase() const override { return driver_->phase(); }
  std::uint32_t rounds_accepted() const override { return driver_->rounds_accepted(); }
  std::uint64_t bytes_sent() const override { return driver_->bytes_sent(); }
  std::uint64_t bytes_received() const override { return driver_->bytes_received(); }
  const TransferCount& transfers() const override { return driver_->transfers(); }
  const std::optional<Finished>& finished() const override { return driver_->finished(); }
  std::optional<std::uint32_t> training_steps() const override { return trainer_.steps(); }

 private:
  /// A server that may learn only a sum is not told how many examples there are, only whether there
  /// are any.
  std::uint64_t examples_to_tell() {
    const std::uint64_t examples = data_.num_examples();
    const bool hidden =
        options_.hide_num_examples || options_.required_privacy.threat_model != ThreatModel::kNone;
    return hidden && examples > 0 ? 1 : examples;
  }

  Result<void> check_room(const TrainingPlan& plan) const {
    const MemoryBase base{.num_examples = data_.num_examples(), .process_bytes = resident_bytes()};
    return check_memory(plan, registry_, base, options_.max_memory_bytes);
  }

  ParticipantOptions participant_options(ClientId client) const {
    ParticipantOptions options;
    options.client = client;
    options.credentials = options_.kit.credentials;
    options.required_privacy = options_.required_privacy;
    std::random_device device;  // devices that restart together should not come back together
    options.seed = (std::uint64_t{device()} << 32) | device();
    options.conditions = conditions_;
    options.permissions = permissions_;
    options.answer_timeout = options_.answer_timeout;
    options.max_training_time = options_.max_training_time;
    if (options_.max_memory_bytes > 0) {
      options.max_model_bytes = options_.max_memory_bytes;
      options.has_room = [this](std::uint64_t bytes) {
        return resident_bytes() + bytes <= options_.max_memory_bytes;
      };
      options.check_plan = [this](const TrainingPlan& plan) { return check_room(plan); };
    }
    return options;
  }

  void make_driver(transport::EventLoop& loop, std::unique_ptr<transport::Dialer> dialer,
                   std::unique_ptr<Spool> spool, Log log) {
    Driver::Host host;
    host.spool = std::move(spool);
    host.death = &death_;
    host.log = std::move(log);
    host.on_phase = events_.on_phase;
    host.on_accepted = [this](RoundOfRun round) {
      data_.update_counted(round.first, round.second);
      data_changed();  // what is new since the last update may be less now
      if (events_.on_accepted) events_.on_accepted(round.second);
    };
    host.on_finished = [this] {
      if (events_.on_finished) events_.on_finished(*driver_->finished());
    };
    const ClientId client = dialer->identity().client;
    driver_ = std::make_unique<Driver>(loop, std::move(dialer), participant_options(client),
                                       trainers_, workers_, std::move(host));
  }

  DeviceOptions options_;
  LocalData& data_;
  DeviceEvents events_;
  DeviceReadings readings_;
  SuddenDeath death_;
  DeviceConditions conditions_;
  Permissions permissions_;
  const strategies::Registry registry_ = strategies::Registry::with_built_ins();
  DeviceTrainer trainer_;
  TrainerPool trainers_;
  transport::WorkerPool workers_;   // its thread ends before the trainer does
  std::unique_ptr<Driver> driver_;  // goes first: it cancels what the thread works on
};

}  // namespace

Result<std::unique_ptr<Device>> Device::make(transport::EventLoop& loop, DeviceOptions options,
                                             LocalData& data, Log log, DeviceEvents events) {
  return ConnectedDevice::make(loop, std::move(options), data, std::move(log), std::move(events));
}

}  // namespace covey::client
