#include "device_models.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "availability.hpp"
#include "device_mixes.hpp"
#include "device_streams.hpp"
#include "traces.hpp"

namespace covey::simulation {
namespace {

constexpr double kBytesPerMegabit = 1e6 / 8;
constexpr double kBytesPerMebibyte = 1024.0 * 1024;
constexpr double kJoulesPerWattHour = 3600;
constexpr double kBytesPerMegabyte = 1e6;

/// Uniform in the logarithm: half of the draws lie below the geometric mean. A single value comes
/// out as it is.
double log_uniform(RandomStream& random, double low, double high) {
  const double drawn = random.uniform();
  if (!(low < high)) return low;
  return low > 0 ? low * std::pow(high / low, drawn) : high * drawn;
}

std::string names_of(const std::vector<DeviceClassConfig>& classes) {
  std::string names;
  for (const DeviceClassConfig& one : classes) names += (names.empty() ? "" : ", ") + one.name;
  return names;
}

/// What is configured for devices of a class should meet some.
Result<void> check_client_classes(const RunConfig& config, bool named,
                                  const std::vector<DeviceClassConfig>& classes) {
  for (const ClientClassConfig& one : config.client.classes) {
    const std::string key = "client.class." + one.name;
    if (!named) {
      return invalid_argument(key +
                              ": the fleet's devices are of no class; [[fleet.class]] or "
                              "fleet.mix names theirs");
    }
    if (std::ranges::find(classes, one.name, &DeviceClassConfig::name) != classes.end()) continue;
    return invalid_argument(key + ": no device of the fleet is of this class; its classes are " +
                            names_of(classes));
  }
  return {};
}

}  // namespace

struct DeviceModels::Data {
  std::uint64_t seed = 0;
  Duration starts_at{};  ///< of the run: time since midnight
  bool named = false;
  std::vector<DeviceClassConfig> classes;
  std::vector<double> shares;  ///< of the classes up to and including this one; the last is 1
  std::vector<Availability> availabilities;
  std::optional<CapacityTrace> capacity;
  std::optional<AvailabilityTrace> availability;

  /// Which of them a device is is the first thing drawn of it.
  std::uint32_t draw_class(RandomStream& random) const {
    const double drawn = random.uniform();
    const auto found = std::upper_bound(shares.begin(), shares.end() - 1, drawn);
    return static_cast<std::uint32_t>(found - shares.begin());
  }
};

Result<DeviceModels> DeviceModels::make(const RunConfig& config, const std::string& data_directory,
                                        std::uint32_t population) {
  if (population == 0) return invalid_argument("partition.clients: a fleet needs a device");
  const FleetConfig& fleet = config.fleet;
  auto data = std::make_shared<Data>();
  data->seed = config.seed;
  data->starts_at = hours(fleet.start_hour);
  data->named = !fleet.mix.empty() || !fleet.classes.empty();
  if (!fleet.mix.empty()) {
    COVEY_ASSIGN(data->classes, device_mix(fleet.mix));
  } else if (!fleet.classes.empty()) {
    data->classes = fleet.classes;
  } else {
    data->classes = {fleet.traits};
  }
  COVEY_TRY(check_client_classes(config, data->named, data->classes));
  double total = 0;
  for (const DeviceClassConfig& one : data->classes) {
    COVEY_ASSIGN(const Availability model, availability_of(one.availability));
    data->availabilities.push_back(model);
    data->shares.push_back(total += one.share);
  }
  for (double& share : data->shares) share /= total;
  if (!fleet.capacity_trace.empty()) {
    std::string path = fleet.capacity_trace;
    COVEY_ASSIGN(const std::string text, read_trace_file(data_directory, path));
    COVEY_ASSIGN(data->capacity, CapacityTrace::parse(text, path));
  }
  if (!fleet.availability_trace.empty()) {
    std::string path = fleet.availability_trace;
    COVEY_ASSIGN(const std::string text, read_trace_file(data_directory, path));
    COVEY_ASSIGN(data->availability, AvailabilityTrace::parse(text, path));
    if (data->availability->is_empty()) {
      return malformed(path + ": no device is online at any time: every list of intervals is empty, or "
                              "active and inactive are equal");
    }
  }
  DeviceModels models;
  models.data_ = std::move(data);
  return models;
}

DeviceTraits DeviceModels::traits(ClientId client) const {
  RandomStream random = device_stream(data_->seed, client, DeviceDraw::kTraits);
  DeviceTraits traits;
  traits.device_class = data_->draw_class(random);
  const DeviceClassConfig& of = data_->classes[traits.device_class];
  traits.latency = from_seconds(random.uniform(of.latency_ms_min, of.latency_ms_max) * 1e-3);
  traits.up_bytes_per_s =
      log_uniform(random, of.up_mbit_s_min, of.up_mbit_s_max) * kBytesPerMegabit;
  traits.down_bytes_per_s =
      log_uniform(random, of.down_mbit_s_min, of.down_mbit_s_max) * kBytesPerMegabit;
  traits.flops_per_s = log_uniform(random, of.gflops_min, of.gflops_max) * 1e9;
  traits.memory_bytes = static_cast<std::uint64_t>(
      random.uniform(of.memory_mib_min, of.memory_mib_max) * kBytesPerMebibyte);
  traits.compute_watts = of.compute_watts;
  traits.radio_joules_per_byte = of.radio_joules_per_mb / kBytesPerMegabyte;
  traits.battery_joules = of.battery_wh * kJoulesPerWattHour;
  if (data_->capacity) {
    const CapacityTrace::Capacity& capacity = data_->capacity->of(client);
    traits.seconds_per_example = capacity.seconds_per_example();
    traits.up_bytes_per_s = traits.down_bytes_per_s = capacity.bytes_per_s();
  }
  return traits;
}

Surroundings DeviceModels::surroundings(ClientId client, Time at) const {
  const Time clock = at + data_->starts_at;
  Surroundings now;
  if (data_->availability) {
    now = data_->availability->surroundings(client, clock);
  } else {
    std::uint32_t device_class = 0;
    if (data_->classes.size() > 1) {
      RandomStream random = device_stream(data_->seed, client, DeviceDraw::kTraits);
      device_class = data_->draw_class(random);
    }
    now = surroundings_by_model(data_->availabilities[device_class], data_->seed, client, clock);
  }
  if (now.until != Time::max()) now.until -= data_->starts_at;
  return now;
}

std::string_view DeviceModels::class_name(std::uint32_t device_class) const {
  return data_->named ? std::string_view(data_->classes.at(device_class).name) : std::string_view();
}

const std::vector<DeviceClassConfig>& DeviceModels::classes() const { return data_->classes; }

bool DeviceModels::always_online() const {
  return !data_->availability && std::ranges::all_of(data_->availabilities, [](Availability model) {
    return model == Availability::kAlways;
  });
}

bool DeviceModels::has_bandwidths() const {
  return data_->capacity.has_value() ||
         std::ranges::any_of(data_->classes, [](const DeviceClassConfig& one) {
           return one.up_mbit_s_max > 0 || one.down_mbit_s_max > 0;
         });
}

}  // namespace covey::simulation
