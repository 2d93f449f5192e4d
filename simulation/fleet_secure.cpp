#include <algorithm>
#include <fmt/format.h>

#include "fleet.hpp"

// What the fleet does for secure sums: masking, devices that vanish in the middle of one, and the check that
// what the server unmasks is the sum of what the devices put in.
namespace covey::simulation {
namespace {

constexpr std::uint64_t kAggregationStream = 16;  // and up: streams of seeded_secrets, one per attempt

}  // namespace

std::unique_ptr<privacy::SecretSource> Fleet::secrets_of(std::uint64_t seed, ClientId client,
                                                         const AggregationRound& round) {
  std::uint64_t attempt = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    attempt |= std::uint64_t{round.id.bytes[8 + i]} << (8 * i);
  }
  return privacy::seeded_secrets(seed, round.round, client, kAggregationStream + attempt);
}

void Fleet::mask(DeviceIndex index, client::MaskUpdate& action) {
  if (options_.check_sums) unmasked_[static_cast<ClientId>(index)] = action.update;
  auto masked = action.job->run(action.format, action.update.span());
  tell_device(index, client::UpdateMasked{action.round, std::move(masked)});
}

void Fleet::leave(DeviceIndex index) {
  Device& device = devices_[index];
  device.leaves_in = LeavesIn::kNever;
  // Out of reach until the round cannot want it any more.
  device.offline_until = now_ + from_seconds(experiment_.config.selection.round_deadline_s);
  if (!device.connection) return;
  const ConnectionId connection = *device.connection;
  queue_.push(now_ + device.traits.latency, LinkDown{index, connection, true});
  queue_.push(now_, LinkDown{index, connection, false});
}

/// With SimulationOptions::check_sums: the unmasked sum against the sum of the devices' own vectors.
void Fleet::check_sum() {
  const auto& format = pipeline_.sum_format();
  if (!options_.check_sums || !format) return;
  std::vector<std::uint64_t> expected(format->packed.words());
  for (const ClientId client : pipeline_.counted()) {
    const auto found = unmasked_.find(client);
    COVEY_ASSERT(found != unmasked_.end());
    privacy::add_packed(format->packed, found->second.span(), expected);
  }
  if (!std::ranges::equal(expected, pipeline_.packed_sum())) {
    internal_error_ = failed(fmt::format(
        "the unmasked sum of round {} is not the sum of its {} devices' updates",
        value_of(coordinator_.committed_round()) + 1, pipeline_.counted().size()));
  }
  unmasked_.clear();
}

}  // namespace covey::simulation
