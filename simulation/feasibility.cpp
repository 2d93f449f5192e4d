#include "feasibility.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/encoding.hpp>
#include <covey/server/offered_compressor.hpp>
#include <covey/time.hpp>
#include <limits>

namespace covey::simulation {
namespace {

double transfer_s(double bytes, double bytes_per_s) {
  return bytes_per_s > 0 ? bytes / bytes_per_s : 0;
}

double bytes_of(Encoding encoding, const Experiment& experiment) {
  return static_cast<double>(encoded_size(encoding, experiment.layout));
}

/// Of whatever compressor a device may be asked for; nothing is said of one that is not understood.
double least_update_bytes(const Experiment& experiment) {
  const auto offered =
      server::offer_compressors(compressors_of(experiment.config), experiment.layout);
  if (!offered.ok()) return 0;
  double least = bytes_of(Encoding::kFp32, experiment);
  for (const auto& one : *offered) least = std::min(least, static_cast<double>(one.sizes.min));
  return least;
}

/// What a class does otherwise than the plan says.
struct ClassWork {
  double epochs = 1;
  double share = 1;  ///< of the network's weights, at least
};

ClassWork work_of(const Experiment& experiment, std::string_view device_class) {
  const ClientConfig& client = experiment.config.client;
  ClassWork work;
  work.epochs = client.local_epochs;
  const auto found = std::ranges::find(client.classes, device_class, &ClientClassConfig::name);
  if (found != client.classes.end()) {
    work.epochs = found->local_epochs.value_or(client.local_epochs);
    // Weights between two hidden layers shrink with the square of the width, all others less.
    work.share = found->width * found->width;
  }
  if (client.accept_partial_work) work.epochs = 1;  // a report after one epoch counts
  return work;
}

}  // namespace

double shortest_round_s(const Experiment& experiment, const DeviceModels& models, ClientId client) {
  const DeviceTraits traits = models.traits(client);
  const ClassWork work = work_of(experiment, models.class_name(traits.device_class));
  const double per_example =
      traits.seconds_per_example > 0
          ? traits.seconds_per_example
          : work.share * experiment.training_flops_per_example() / traits.flops_per_s;
  const double training =
      work.epochs * static_cast<double>(experiment.num_examples(client)) * per_example;
  // The assignment, the request of the model and its answer, the update: one way each.
  const double latencies = 4 * seconds(traits.latency);
  const auto model = model_encoding(experiment.plan.precision);
  return latencies + training +
         transfer_s(work.share * bytes_of(model.ok() ? *model : Encoding::kInt8, experiment),
                    traits.down_bytes_per_s) +
         transfer_s(work.share * least_update_bytes(experiment), traits.up_bytes_per_s);
}

namespace {

/// Weights twice, as the device and the round have them: what training takes at the very least.
double least_memory_bytes(const Experiment& experiment, const DeviceModels& models,
                          const DeviceTraits& traits) {
  const ClassWork work = work_of(experiment, models.class_name(traits.device_class));
  constexpr double kLeastBytesPerWeight = 2;  // in int8
  return kLeastBytesPerWeight * work.share * static_cast<double>(experiment.layout.size());
}

}  // namespace

Result<void> check_memory(const Experiment& experiment, const DeviceModels& models) {
  double largest = 0, needed = 0;
  for (std::uint32_t k = 0; k < experiment.population(); ++k) {
    const DeviceTraits traits = models.traits(static_cast<ClientId>(k));
    needed = least_memory_bytes(experiment, models, traits);
    if (traits.memory_bytes == 0 || static_cast<double>(traits.memory_bytes) >= needed) return {};
    largest = std::max(largest, static_cast<double>(traits.memory_bytes));
  }
  return invalid_argument(
      fmt::format("fleet.memory-mib: the model's weights alone take {:.3g} KiB in training, the "
                  "largest device has "
                  "{:.3g}",
                  needed / 1024, largest / 1024));
}

Result<void> check_deadline(const Experiment& experiment, const DeviceModels& models) {
  const double deadline = experiment.config.selection.round_deadline_s;
  double shortest = std::numeric_limits<double>::infinity();
  std::uint32_t fastest = 0;
  for (std::uint32_t k = 0; k < experiment.population(); ++k) {
    const auto client = static_cast<ClientId>(k);
    if (experiment.num_examples(client) == 0) continue;
    const double takes = shortest_round_s(experiment, models, client);
    if (takes <= deadline) return {};  // mostly the first
    if (takes < shortest) fastest = k;
    shortest = std::min(shortest, takes);
  }
  return invalid_argument(fmt::format(
      "selection.round-deadline-s = {}: no device can train and transfer in that time; the fastest "
      "(device {}) takes {:.3g} s",
      deadline, fastest, shortest));
}

}  // namespace covey::simulation
