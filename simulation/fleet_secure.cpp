#include <fmt/format.h>

#include <algorithm>

#include "fleet.hpp"

// What the fleet does for secure sums: masking, devices that vanish in the middle of one, and the
// check that what the server unmasks is the sum of what the devices put in.
namespace covey::simulation {
namespace {

constexpr std::uint64_t kAggregationStream =
    16;  // and up: streams of seeded_secrets, one per attempt

}  // namespace

std::unique_ptr<privacy::SecretSource> Fleet::secrets_of(std::uint64_t seed, ClientId client,
                                                         const AggregationRound& round,
                                                         std::uint64_t lives) {
  std::uint64_t attempt = lives << 32;
  for (std::size_t i = 0; i < 8; ++i) {
    attempt |= std::uint64_t{round.id.bytes[8 + i]} << (8 * i);
  }
  return privacy::seeded_secrets(seed, round.round, client, kAggregationStream + attempt);
}

void Fleet::mask(DeviceIndex index, client::MaskUpdate& action) {
  auto masked = action.job->run(action.format, action.update.span());
  if (checks_sums() && masked.ok()) unmasked_[masked->digest()] = action.update;
  tell_device(index, client::UpdateMasked{action.round, std::move(masked)});
}

void Fleet::leave(DeviceIndex index) {
  Device& device = *devices_[index];
  device.leaves_in = LeavesIn::kNever;
  // Out of reach until the round cannot want it any more.
  device.offline_until =
      next_online(index, now_ + from_seconds(experiment_.config.selection.round_deadline_s));
  cut(index, true);
}

void Fleet::wrong_sum(const std::string& sentence) {
  if (invariants_) {
    invariants_->violated("a secure sum is the sum of its survivors", sentence);
  } else {
    internal_error_ = failed(sentence);
  }
}

/// Where sums are checked: the unmasked sum against the sum of the devices' own vectors.
void Fleet::check_sum() {
  const auto& pipeline = server_->pipeline;
  const auto& format = pipeline.sum_format();
  // Without signatures nobody notices that a key was changed on its way, and no sum comes out
  // right.
  const bool forged = faults_ && experiment_.config.faults.corrupt > 0 &&
                      experiment_.config.secure_aggregation.mode != "malicious-server";
  if (!checks_sums() || !format || forged) return;
  std::vector<std::uint64_t> expected(format->packed.words());
  for (const ClientId client : pipeline.counted()) {
    const auto accepted = summed_.find(client);
    COVEY_ASSERT(accepted != summed_.end());
    const auto found = unmasked_.find(accepted->second);
    if (found == unmasked_.end()) {
      return wrong_sum(
          fmt::format("the sum of round {} holds an update of client {} that no device masked",
                      value_of(server_->coordinator.committed_round()) + 1, value_of(client)));
    }
    privacy::add_packed(format->packed, found->second.span(), expected);
  }
  if (!std::ranges::equal(expected, pipeline.packed_sum())) {
    wrong_sum(fmt::format("the unmasked sum of round {} is not the sum of its {} devices' updates",
                          value_of(server_->coordinator.committed_round()) + 1,
                          pipeline.counted().size()));
  }
  unmasked_.clear();
}

}  // namespace covey::simulation
