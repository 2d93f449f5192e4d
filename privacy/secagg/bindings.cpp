#include "secagg/bindings.hpp"

#include <algorithm>
#include <array>
#include <covey/assert.hpp>
#include <cstring>
#include <string_view>

#include "secagg/transcript.hpp"

namespace covey::privacy {
namespace {

// Every label ends in the protocol's version and is used for one thing only.
constexpr std::string_view kMaskLabel = "covey secagg pair mask v1";
constexpr std::string_view kSelfLabel = "covey secagg self mask v1";
constexpr std::string_view kShareBaseLabel = "covey secagg shares v1";
constexpr std::string_view kShareDirectionLabel = "covey secagg shares direction v1";
constexpr std::string_view kAssociatedLabel = "covey secagg shares associated v1";
constexpr std::string_view kSeedLabel = "covey secagg self seed v1";
constexpr std::string_view kAdvertisementLabel = "covey secagg advertisement v1";
constexpr std::string_view kDirectoryLabel = "covey secagg directory entry v1";
constexpr std::string_view kGraphLabel = "covey secagg graph v1";
constexpr std::string_view kSurvivorsLabel = "covey secagg survivors v1";
constexpr std::string_view kConfirmationLabel = "covey secagg confirmation v1";

Transcript of_pair(std::string_view label, ClientId a, ClientId b) {
  Transcript info(label);
  info.add(std::min(a, b)).add(std::max(a, b));
  return info;
}

Transcript of_direction(std::string_view label, ClientId sender, ClientId receiver) {
  Transcript info(label);
  info.add(sender).add(receiver);
  return info;
}

Transcript associated_with(const Digest& context, ClientId sender, ClientId receiver) {
  Transcript associated(kAssociatedLabel);
  associated.add(context).add(sender).add(receiver);
  return associated;
}

std::span<const std::byte> bytes_of(const ShareCommitment& commitment) {
  return std::as_bytes(std::span(commitment));
}

// First 31 bytes and the last one without its top bit, which X25519 ignores.
constexpr PublicKey low_bytes(std::uint8_t first, std::uint8_t middle, std::uint8_t last) {
  PublicKey key{};
  for (auto& byte : key) byte = middle;
  key.front() = first;
  key.back() = last;
  return key;
}

}  // namespace

bool is_small_order(const PublicKey& key) {
  // u = 0 and 1; the two points of order 8; p - 1, p and p + 1 with p = 2^255 - 19 (the last two
  // are other encodings of 0 and 1). D. J. Bernstein, "Curve25519: which public keys are bad?"
  static constexpr std::array<PublicKey, 7> kBad = {
      low_bytes(0, 0, 0),
      low_bytes(1, 0, 0),
      {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3,
       0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32,
       0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
      {0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1,
       0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c,
       0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
      low_bytes(0xec, 0xff, 0x7f),
      low_bytes(0xed, 0xff, 0x7f),
      low_bytes(0xee, 0xff, 0x7f)};
  PublicKey u = key;
  u.back() &= 0x7f;
  return std::find(kBad.begin(), kBad.end(), u) != kBad.end();
}

Result<Secret<32>> pair_mask_key(const Secret<32>& mask_secret, const PublicKey& peer_mask_key,
                                 const Digest& context, ClientId own, ClientId peer) {
  return agree(mask_secret, peer_mask_key, context, of_pair(kMaskLabel, own, peer).bytes());
}

Secret<32> self_mask_key(const Secret<32>& self_seed, const Digest& context, ClientId own) {
  return derive(self_seed, context, Transcript(kSelfLabel).add(own).bytes());
}

Result<Secret<32>> share_base_key(const Secret<32>& cipher_secret, const PublicKey& peer_cipher_key,
                                  const Digest& context, ClientId own, ClientId peer) {
  return agree(cipher_secret, peer_cipher_key, context,
               of_pair(kShareBaseLabel, own, peer).bytes());
}

Secret<32> share_key(const Secret<32>& base, const Digest& context, ClientId sender,
                     ClientId receiver) {
  return derive(base, context, of_direction(kShareDirectionLabel, sender, receiver).bytes());
}

Result<std::vector<std::byte>> seal_shares(const Secret<32>& base, const Digest& context,
                                           ClientId sender, ClientId receiver,
                                           const SharePair& shares) {
  Secret<2 * kShareBytes> plain;
  std::memcpy(plain.data(), shares.self_seed.data(), kShareBytes);
  std::memcpy(plain.data() + kShareBytes, shares.mask_key.data(), kShareBytes);
  return seal(share_key(base, context, sender, receiver), plain.span(),
              associated_with(context, sender, receiver).bytes());
}

Result<SharePair> open_shares(const Secret<32>& base, const Digest& context, ClientId sender,
                              ClientId receiver, std::span<const std::byte> ciphertext) {
  if (ciphertext.size() != kSharesCiphertextBytes) return malformed("encrypted shares: wrong size");
  auto plain = open(share_key(base, context, sender, receiver), ciphertext,
                    associated_with(context, sender, receiver).bytes());
  if (!plain.ok()) return plain.error();
  if (plain->size() != 2 * kShareBytes) return malformed("encrypted shares: wrong size inside");
  SharePair shares;
  std::memcpy(shares.self_seed.data(), plain->data(), kShareBytes);
  std::memcpy(shares.mask_key.data(), plain->data() + kShareBytes, kShareBytes);
  wipe(*plain);
  return shares;
}

Digest seed_commitment(const Digest& context, ClientId owner, const Secret<32>& self_seed) {
  const Secret<32> opening = derive(self_seed, context, Transcript(kSeedLabel).add(owner).bytes());
  return sha256(opening.span());
}

std::vector<std::byte> advertisement_statement(const Digest& context,
                                               const KeyAdvertisement& keys) {
  Transcript statement(kAdvertisementLabel);
  statement.add(context).add(keys.client).add(keys.cipher_key).add(keys.mask_key);
  return {statement.bytes().begin(), statement.bytes().end()};
}

Digest advertisement_digest(const Digest& context, const KeyAdvertisement& keys) {
  Transcript entry(kDirectoryLabel);
  entry.add(context).add(keys.client).add(keys.cipher_key).add(keys.mask_key);
  entry.add(std::as_bytes(std::span(keys.signature)));
  entry.add(keys.identity.client).add(keys.identity.key);
  entry.add(std::span<const std::byte>(keys.identity.signature));
  return entry.digest();
}

Digest graph_seed(const Digest& context, std::span<const Digest> directory) {
  Transcript seed(kGraphLabel);
  seed.add(context).add(std::uint64_t{directory.size()});
  for (const Digest& entry : directory) seed.add(entry);
  return seed.digest();
}

Digest survivors_digest(const Digest& context, const Digest& graph,
                        std::span<const std::byte> survivors) {
  return Transcript(kSurvivorsLabel).add(context).add(graph).add(survivors).digest();
}

std::vector<std::byte> survivors_statement(const Digest& context, const Digest& survivors) {
  Transcript statement(kConfirmationLabel);
  statement.add(context).add(survivors);
  return {statement.bytes().begin(), statement.bytes().end()};
}

namespace {

void add_shares(Transcript& transcript, const std::vector<EncryptedShares>& shares) {
  transcript.add(std::uint64_t{shares.size()});
  for (const auto& entry : shares) {
    transcript.add(entry.peer).add(std::span<const std::byte>(entry.ciphertext));
    transcript.add(bytes_of(entry.self_seed)).add(bytes_of(entry.mask_key));
  }
}

}  // namespace

Digest fingerprint(const NeighbourKeys& message) {
  Transcript transcript("NeighbourKeys");
  transcript.add(message.round).add(std::uint64_t{message.devices});
  transcript.add(std::uint64_t{message.position}).add(std::uint64_t{message.degree});
  transcript.add(std::uint64_t{message.threshold}).add(std::uint64_t{message.neighbours.size()});
  const Digest nothing;
  for (const auto& neighbour : message.neighbours) {
    transcript.add(std::uint64_t{neighbour.position});
    transcript.add(advertisement_digest(nothing, neighbour.keys));
  }
  transcript.add(std::uint64_t{message.directory.size()});
  for (const Digest& entry : message.directory) transcript.add(entry);
  return transcript.digest();
}

Digest fingerprint(const PeerShares& message) {
  Transcript transcript("PeerShares");
  transcript.add(message.round);
  add_shares(transcript, message.shares);
  return transcript.digest();
}

Digest fingerprint(const ShareKeys& message) {
  Transcript transcript("ShareKeys");
  transcript.add(message.round).add(message.self_seed).add(bytes_of(message.own_share));
  add_shares(transcript, message.shares);
  return transcript.digest();
}

Digest fingerprint(const Unmask& message) {
  Transcript transcript("Unmask");
  transcript.add(message.round).add(std::uint64_t{message.shares.size()});
  for (const auto& share : message.shares) {
    transcript.add(share.owner).add(std::uint64_t{share.self_seed});
    transcript.add(std::span<const std::byte>(share.share));
  }
  transcript.add(std::uint64_t{message.unreadable.size()});
  for (const ClientId client : message.unreadable) transcript.add(client);
  return transcript.digest();
}

}  // namespace covey::privacy
