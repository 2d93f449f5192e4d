#pragma once

#include <covey/digest.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/privacy/secagg_device.hpp>
#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <cstdint>
#include <span>
#include <vector>

#include "secagg/shamir.hpp"

/// What a device believes of a server, and what it does not. Each check gives a sentence that names
/// what is wrong and of whom, and changes nothing; lengths are looked at before what they measure.
namespace covey::privacy {

/// One neighbour, as far as a device knows it.
struct Peer {
  std::uint32_t position = 0;
  ClientId client{};
  PublicKey mask_key{};
  PublicKey identity{};
  Secret<32> share_base;  ///< until its shares are open
  bool shared = false;    ///< its shares came: masks with it are in the contribution
  bool readable = false;  ///< and they opened and matched their commitments
  ShareBytes self_seed;   ///< its share that this device holds
  ShareBytes mask_key_share;
};

struct OwnAdvertisement {
  const AggregationContext& context;
  const Digest& digest;  ///< of the context
  const KeyAdvertisement& keys;
  const AuthorityKey* authority;  ///< null unless the server may be malicious
};

/// `message` names the sum that the device takes part in.
Result<void> check_round(const AggregationRound& own, const AggregationRound& message,
                         const char* what);
Result<void> check_neighbour_keys(const OwnAdvertisement& own, const NeighbourKeys& message);
/// `peers`: ascending by position (and client).
Result<void> check_peer_shares(std::span<const Peer> peers, std::uint32_t threshold,
                               const PeerShares& message);

struct SurvivorCheck {
  std::uint32_t devices = 0;
  std::uint32_t position = 0;  ///< the device's own
  std::uint32_t threshold = 0;
  std::span<const Peer> peers;
};
Result<void> check_survivors(const SurvivorCheck& own, std::span<const std::byte> survivors);
/// `statement`: what a neighbour that confirms the set `survivors` signs.
Result<void> check_confirmations(const SurvivorCheck& own, std::span<const std::byte> survivors,
                                 std::span<const std::byte> statement,
                                 const SurvivorConfirmations& message);

}  // namespace covey::privacy
