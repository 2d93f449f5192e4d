#include "client/daemon/device_fleet.hpp"

#include <chrono>
#include <random>

#include <unistd.h>

#include <spdlog/spdlog.h>

#include <covey/compressor_spec.hpp>

namespace covey::client {
namespace {

/// Bytes of memory nobody uses now; 0 where the system does not tell.
std::uint64_t free_memory() {
  const long pages = sysconf(_SC_AVPHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
  return pages > 0 && bytes > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(bytes) : 0;
}

ParticipantOptions participant_options(ClientId client, std::uint64_t num_examples, const Kit& kit,
                                       const FleetOptions& fleet) {
  ParticipantOptions options;
  options.client = client;
  options.credentials = kit.credentials;
  options.required_privacy = fleet.required_privacy;
  std::random_device device;  // devices that restart together should not come back together
  options.seed = (static_cast<std::uint64_t>(device()) << 32) | device();
  options.conditions.num_examples = fleet.hides_num_examples ? 1 : num_examples;
  options.conditions.charging = fleet.charging;
  options.conditions.metered = fleet.metered;
  options.conditions.device_class = fleet.device_class;
  options.conditions.free_memory_bytes = free_memory();
  options.conditions.agent_version = "covey/" COVEY_VERSION;
  options.conditions.precisions = models::supported_precisions();
  options.conditions.compressors = compressor_names();
  options.keep_finished_work = fleet.kits.size() == 1;  // hundreds of devices would keep hundreds of models
  return options;
}

Log log_of(const std::string& device) {
  return [device](LogLevel level, std::string_view text) {
    spdlog::log(level == LogLevel::kError     ? spdlog::level::err
                : level == LogLevel::kWarning ? spdlog::level::warn
                : level == LogLevel::kInfo    ? spdlog::level::info
                                              : spdlog::level::debug,
                "{}: {}", device, text);
  };
}

}  // namespace

Result<FleetResult> take_part(const FleetOptions& options) {
  transport::EventLoop loop;
  TrainerPool trainers(options.make_trainer, options.prepare);
  transport::WorkerPool workers(options.threads);  // its threads end before the trainers go
  std::vector<std::unique_ptr<Driver>> drivers;
  std::size_t running = 0;
  const auto on_finished = [&] {
    if (--running == 0) loop.post([&loop] { loop.stop(); });  // after what is queued to be sent
  };
  for (const Kit& kit : options.kits) {
    transport::Dialer::Options dialing;
    dialing.address = kit.address;
    dialing.server_name = kit.server_name;
    dialing.tls = kit.tls;
    COVEY_ASSIGN(auto dialer, transport::Dialer::make(loop, dialing));
    const ClientId client = dialer->identity().client;
    const std::uint64_t examples = options.num_examples(client);
    if (examples == 0) {
      return invalid_argument("device " + std::to_string(value_of(client)) +
                              " has no examples in this run file's partition");
    }
    Driver::Host host;
    host.log = log_of(dialer->identity().common_name);
    host.on_finished = on_finished;
    drivers.push_back(std::make_unique<Driver>(loop, std::move(dialer),
                                               participant_options(client, examples, kit, options),
                                               trainers, workers, std::move(host)));
    drivers.back()->drop_out(options.drop_out);
  }
  running = drivers.size();
  loop.on_termination([&](int) {
    spdlog::info("stopping");
    for (auto& driver : drivers) driver->stop();
  });
  const auto began = std::chrono::steady_clock::now();
  for (auto& driver : drivers) driver->start();
  if (running > 0) loop.run();

  FleetResult result;
  result.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  for (const auto& driver : drivers) {
    ++result.devices;
    result.rounds_accepted += driver->rounds_accepted();
    result.bytes_sent += driver->bytes_sent();
    result.bytes_received += driver->bytes_received();
    if (driver->finished() && driver->finished()->ok) {
      ++result.finished_ok;
    } else if (result.first_problem.empty() && driver->finished()) {
      result.first_problem = driver->finished()->reason;
    }
  }
  return result;
}

}  // namespace covey::client
