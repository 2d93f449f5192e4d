#pragma once

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "secagg/keys.hpp"
#include "secagg/shamir.hpp"

/// What each key, ciphertext, commitment and signature of a secure sum is bound to. `context` is
/// always AggregationContext::digest(): the run, the round, the attempt, the model, the plan and
/// all settings.
namespace covey::privacy {

/// An X25519 key that forces every agreement to a value known to all (a point of order 1, 2, 4 or
/// 8, or on the twist): RFC 7748, section 6.1.
bool is_small_order(const PublicKey& key);

/// Key of the mask between two devices: both derive the same. The device with the lower id adds it,
/// the other subtracts it. `own` and `peer` are the two devices' ids.
Result<Secret<32>> pair_mask_key(const Secret<32>& mask_secret, const PublicKey& peer_mask_key,
                                 const Digest& context, ClientId own, ClientId peer);
/// Key of a device's own mask.
Secret<32> self_mask_key(const Secret<32>& self_seed, const Digest& context, ClientId own);

/// What two devices agree on for shares, whichever sends.
Result<Secret<32>> share_base_key(const Secret<32>& cipher_secret, const PublicKey& peer_cipher_key,
                                  const Digest& context, ClientId own, ClientId peer);
/// The key of one direction: a ciphertext that is sent back to its sender does not open.
Secret<32> share_key(const Secret<32>& base, const Digest& context, ClientId sender,
                     ClientId receiver);

/// The shares of both secrets of one device, for one holder.
struct SharePair {
  ShareBytes self_seed;
  ShareBytes mask_key;
};
/// AES-256-GCM, 16 bytes of tag; associated: context, sender, receiver.
inline constexpr std::size_t kSharesCiphertextBytes = 2 * kShareBytes + 16;
Result<std::vector<std::byte>> seal_shares(const Secret<32>& base, const Digest& context,
                                           ClientId sender, ClientId receiver,
                                           const SharePair& shares);
Result<SharePair> open_shares(const Secret<32>& base, const Digest& context, ClientId sender,
                              ClientId receiver, std::span<const std::byte> ciphertext);

/// Whose secret a share belongs to, who holds it, and of which of the two secrets it is.
struct ShareSlot {
  ClientId owner{};
  ClientId holder{};
  bool self_seed = false;
};
/// Hiding, because a share has 256 bits that its recipient alone knows; binding to 2^64 work, which
/// a dealer gains nothing by (it could as well deal another polynomial).
ShareCommitment commitment_of(const Digest& context, const ShareSlot& slot,
                              std::span<const std::byte, kShareBytes> share);
Digest seed_commitment(const Digest& context, ClientId owner, const Secret<32>& self_seed);

/// What a device's identity signs of its keys.
std::vector<std::byte> advertisement_statement(const Digest& context, const KeyAdvertisement& keys);
Digest advertisement_digest(const Digest& context, const KeyAdvertisement& keys);
/// Of the neighbour graph: nobody chooses it who does not choose all advertisements.
Digest graph_seed(const Digest& context, std::span<const Digest> directory);

/// What a device's identity signs of a set of survivors. A set is one of positions, so who stands
/// where is part of it: `graph` is the graph_seed of the directory.
Digest survivors_digest(const Digest& context, const Digest& graph,
                        std::span<const std::byte> survivors);
std::vector<std::byte> survivors_statement(const Digest& context, const Digest& survivors);

inline std::size_t survivor_bytes(std::size_t devices) { return (devices + 7) / 8; }
inline bool is_survivor(std::span<const std::byte> survivors, std::uint32_t position) {
  return (std::to_integer<unsigned>(survivors[position / 8]) >> (position % 8) & 1U) != 0;
}

/// By which a repeated message is told from another one; equal exactly for equal content.
Digest fingerprint(const NeighbourKeys& message);
Digest fingerprint(const PeerShares& message);
Digest fingerprint(const ShareKeys& message);
Digest fingerprint(const Unmask& message);

}  // namespace covey::privacy
