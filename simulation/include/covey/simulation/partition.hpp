#pragma once

#include <cstdint>
#include <vector>

#include <covey/models/data_set.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>

namespace covey::simulation {

/// Splits the data over config.clients devices, by config.scheme:
///   iid         shuffled, equal parts
///   shards      sorted by label, clients * shards_per_client shards dealt at random (McMahan 2017)
///   dirichlet   each class divided by Dirichlet(concentration) over devices (Hsu 2019)
///   power-law   sizes proportional to rank^-exponent, labels shuffled
///   natural     the owners as they are (synthetic, LEAF, CSV with a user column)
/// Where the data has no owners, a device's test examples are drawn from the test set with the same
/// share of labels as its training examples (iid: equal parts of the test set).
/// Deterministic in (data, config, seed), the same in the simulator and in a deployed client.
/// A scheme may leave devices without a training example (few examples for many devices, a small
/// concentration, owners that have none). config.empty says what then: "refuse": an error (dirichlet is drawn
/// again first); "keep": they stay empty; "move": each is given one example of the device that has most.
Result<std::vector<models::Shard>> partition(const models::FederatedData& data,
                                             const PartitionConfig& config, std::uint64_t seed);

}  // namespace covey::simulation
