#include "secagg/device_checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/privacy/neighbourhood.hpp>

#include "secagg/bindings.hpp"

namespace covey::privacy {
namespace {

bool is_malicious_server(const AggregationContext& context) {
  return context.settings.threat_model == ThreatModel::kMaliciousServer;
}

Result<void> check_sizes(const OwnAdvertisement& own, const NeighbourKeys& message) {
  const auto& settings = own.context.settings;
  if (message.devices > settings.max_devices) {
    return malformed(fmt::format("neighbour keys: {} devices, though the plan allows {}",
                                 message.devices, settings.max_devices));
  }
  const Neighbourhood announced{message.devices, message.degree, message.threshold};
  auto strong = check_neighbourhood(announced, settings);
  if (!strong.ok()) return with_context("neighbour keys", strong.error());
  if (message.position >= message.devices) {
    return malformed(fmt::format("neighbour keys: position {} among {} devices", message.position,
                                 message.devices));
  }
  if (message.neighbours.size() != message.degree) {
    return malformed(fmt::format("neighbour keys: {} neighbours were listed, not {}",
                                 message.neighbours.size(), message.degree));
  }
  const std::size_t entries = is_malicious_server(own.context) ? message.devices : 0;
  if (message.directory.size() != entries) {
    return malformed(fmt::format("neighbour keys: the directory has {} entries, not {}",
                                 message.directory.size(), entries));
  }
  return {};
}

// The directory is sorted by client, so positions and ids ascend together, this device's own
// between its neighbours'.
Result<void> check_order(const OwnAdvertisement& own, const NeighbourKeys& message) {
  const Neighbour* before = nullptr;
  for (const auto& neighbour : message.neighbours) {
    const ClientId client = neighbour.keys.client;
    if (client == own.keys.client || neighbour.position == message.position) {
      return malformed("neighbour keys: this device is listed as its own neighbour");
    }
    if (neighbour.position >= message.devices) {
      return malformed(fmt::format("neighbour keys: device {} at position {} of {}",
                                   value_of(client), neighbour.position, message.devices));
    }
    const bool own_order = (client < own.keys.client) == (neighbour.position < message.position);
    const bool order = before == nullptr ||
                       (before->position < neighbour.position && before->keys.client < client);
    if (!order || !own_order) {
      return malformed(
          fmt::format("neighbour keys: device {} is repeated or out of order", value_of(client)));
    }
    before = &neighbour;
  }
  return {};
}

Result<void> check_keys_differ(const OwnAdvertisement& own, const NeighbourKeys& message) {
  std::vector<PublicKey> keys = {own.keys.cipher_key, own.keys.mask_key};
  keys.reserve(2 + 2 * message.neighbours.size());
  for (const auto& neighbour : message.neighbours) {
    for (const PublicKey& key : {neighbour.keys.cipher_key, neighbour.keys.mask_key}) {
      if (is_small_order(key)) {
        return malformed(fmt::format("neighbour keys: device {}'s key is a point of small order",
                                     value_of(neighbour.keys.client)));
      }
      keys.push_back(key);
    }
  }
  std::sort(keys.begin(), keys.end());
  if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) {
    return malformed("neighbour keys: one key was listed twice");
  }
  return {};
}

Result<void> check_signed(const OwnAdvertisement& own, const KeyAdvertisement& keys) {
  const std::string who = fmt::format("neighbour keys: device {}", value_of(keys.client));
  if (keys.identity.client != keys.client) {
    return malformed(fmt::format("{} is shown with device {}'s certificate", who,
                                 value_of(keys.identity.client)));
  }
  auto certified = own.authority->check(keys.identity);
  if (!certified.ok()) return with_context(who, certified.error());
  auto is_signed =
      check_signature(keys.identity.key, advertisement_statement(own.digest, keys), keys.signature);
  if (!is_signed.ok()) {
    return malformed(who + ": its keys are not signed by it for this round, model and plan");
  }
  return {};
}

// Against a server that chooses who guards whose secrets: the graph follows from all
// advertisements.
Result<void> check_graph(const OwnAdvertisement& own, const NeighbourKeys& message) {
  if (message.directory[message.position] != advertisement_digest(own.digest, own.keys)) {
    return malformed("neighbour keys: the directory does not hold this device's own keys");
  }
  const Neighbourhood size{message.devices, message.degree, message.threshold};
  const NeighbourGraph graph(size, graph_seed(own.digest, message.directory));
  const auto positions = graph.neighbours_of(message.position);
  for (std::size_t i = 0; i < message.neighbours.size(); ++i) {
    const auto& neighbour = message.neighbours[i];
    if (i >= positions.size() || positions[i] != neighbour.position) {
      return malformed(fmt::format(
          "neighbour keys: the neighbour graph is not the one that the directory gives (device {} "
          "at position {})",
          value_of(neighbour.keys.client), neighbour.position));
    }
    if (message.directory[neighbour.position] != advertisement_digest(own.digest, neighbour.keys)) {
      return malformed(
          fmt::format("neighbour keys: device {}'s keys are not those of the directory",
                      value_of(neighbour.keys.client)));
    }
    COVEY_TRY(check_signed(own, neighbour.keys));
  }
  return {};
}

const Peer* find_peer(std::span<const Peer> peers, ClientId client) {
  const auto at = std::lower_bound(peers.begin(), peers.end(), client,
                                   [](const Peer& p, ClientId c) { return p.client < c; });
  return at != peers.end() && at->client == client ? &*at : nullptr;
}

}  // namespace

Result<void> check_round(const AggregationRound& own, const AggregationRound& message,
                         const char* what) {
  if (own == message) return {};
  if (own.run == message.run && own.round != message.round) {
    return malformed(fmt::format("{}: of round {}, not of round {}", what, value_of(message.round),
                                 value_of(own.round)));
  }
  return malformed(fmt::format("{}: of another run or another attempt at the round", what));
}

Result<void> check_neighbour_keys(const OwnAdvertisement& own, const NeighbourKeys& message) {
  COVEY_TRY(check_sizes(own, message));
  COVEY_TRY(check_order(own, message));
  COVEY_TRY(check_keys_differ(own, message));
  if (is_malicious_server(own.context)) return check_graph(own, message);
  return {};
}

Result<void> check_peer_shares(std::span<const Peer> peers, std::uint32_t threshold,
                               const PeerShares& message) {
  if (message.shares.size() > peers.size()) {
    return malformed(fmt::format("peer shares: {} entries for {} neighbours", message.shares.size(),
                                 peers.size()));
  }
  const EncryptedShares* before = nullptr;
  for (const auto& entry : message.shares) {
    if (find_peer(peers, entry.peer) == nullptr) {
      return malformed(
          fmt::format("peer shares: device {} is not a neighbour", value_of(entry.peer)));
    }
    if (before != nullptr && before->peer >= entry.peer) {
      return malformed(
          fmt::format("peer shares: device {} is repeated or out of order", value_of(entry.peer)));
    }
    before = &entry;
  }
  if (message.shares.size() + 1 < threshold) {
    return malformed(
        fmt::format("peer shares: only {} of the {} devices of the neighbourhood shared their "
                    "keys; it takes {}",
                    message.shares.size() + 1, peers.size() + 1, threshold));
  }
  return {};
}

Result<void> check_survivors(const SurvivorCheck& own, std::span<const std::byte> survivors) {
  if (survivors.size() != survivor_bytes(own.devices)) {
    return malformed(
        fmt::format("survivor set: {} bytes for {} devices", survivors.size(), own.devices));
  }
  if (own.devices % 8 != 0 &&
      std::to_integer<unsigned>(survivors.back()) >> (own.devices % 8) != 0) {
    return malformed("survivor set: names positions that no device has");
  }
  if (!is_survivor(survivors, own.position)) {
    return malformed("survivor set: without this device, though it is asked for shares");
  }
  std::size_t count = 1;
  for (const Peer& peer : own.peers) {
    if (!is_survivor(survivors, peer.position)) continue;
    if (!peer.shared) {
      return malformed(fmt::format(
          "survivor set: with device {}, whose shares were never passed on to this device",
          value_of(peer.client)));
    }
    ++count;
  }
  if (count < own.threshold) {
    return malformed(fmt::format(
        "survivor set: only {} of the {} devices of the neighbourhood survive; it takes {}", count,
        own.peers.size() + 1, own.threshold));
  }
  return {};
}

Result<void> check_confirmations(const SurvivorCheck& own, std::span<const std::byte> survivors,
                                 std::span<const std::byte> statement,
                                 const SurvivorConfirmations& message) {
  const SurvivorConfirmations::Confirmation* before = nullptr;
  for (const auto& entry : message.confirmations) {
    const Peer* peer = find_peer(own.peers, entry.client);
    if (peer == nullptr || !peer->shared || !is_survivor(survivors, peer->position)) {
      return malformed(fmt::format("confirmations: device {} is not a surviving neighbour",
                                   value_of(entry.client)));
    }
    if (before != nullptr && before->client >= entry.client) {
      return malformed(fmt::format("confirmations: device {} is repeated or out of order",
                                   value_of(entry.client)));
    }
    before = &entry;
  }
  if (message.confirmations.size() + 1 < own.threshold) {
    return malformed(
        fmt::format("confirmations: only {} devices of the neighbourhood confirmed the survivors; "
                    "it takes {}",
                    message.confirmations.size() + 1, own.threshold));
  }
  // t with this device's own are enough; the others' would cost 0.1 ms each and prove nothing more.
  for (std::size_t i = 0; i + 1 < own.threshold; ++i) {
    const auto& entry = message.confirmations[i];
    if (!check_signature(find_peer(own.peers, entry.client)->identity, statement, entry.signature)
             .ok()) {
      return malformed(fmt::format("confirmations: device {} did not sign this set of survivors",
                                   value_of(entry.client)));
    }
  }
  return {};
}

}  // namespace covey::privacy
