#include "secagg_bench_messages.hpp"

namespace covey {
namespace {

constexpr std::size_t kIdBytes = sizeof(ClientId);
constexpr std::size_t kRoundBytes =
    sizeof(RunId) + sizeof(RoundNumber) + sizeof(AggregationId::bytes);
constexpr std::size_t kKeyBytes = sizeof(PublicKey);
constexpr std::size_t kSignatureBytes = sizeof(Signature);
constexpr std::size_t kDigestBytes = sizeof(Digest::bytes);
constexpr std::size_t kPositionBytes = sizeof(std::uint32_t);

/// A signature and an identity are there only with a malicious server in mind.
std::size_t keys_bytes(const KeyAdvertisement& keys) {
  const std::size_t plain = kIdBytes + 2 * kKeyBytes;
  if (keys.identity.signature.empty()) return plain;
  return plain + kSignatureBytes + kIdBytes + kKeyBytes + keys.identity.signature.size();
}

std::size_t shares_bytes(const std::vector<EncryptedShares>& shares) {
  std::size_t bytes = 0;
  for (const auto& share : shares) {
    bytes += kIdBytes + share.ciphertext.size() + 2 * sizeof(ShareCommitment);
  }
  return bytes;
}

}  // namespace

std::size_t content_bytes(const AdvertiseKeys& message) {
  return kRoundBytes + keys_bytes(message.keys);
}

std::size_t content_bytes(const ShareKeys& message) {
  return kRoundBytes + kDigestBytes + sizeof(ShareCommitment) + shares_bytes(message.shares);
}

std::size_t content_bytes(const ConfirmSurvivors&) {
  return kRoundBytes + kDigestBytes + kSignatureBytes;
}

std::size_t content_bytes(const Unmask& message) {
  std::size_t bytes = kRoundBytes + message.unreadable.size() * kIdBytes;
  for (const auto& share : message.shares) bytes += kIdBytes + 1 + share.share.size();
  return bytes;
}

std::size_t content_bytes(const NeighbourKeys& message) {
  std::size_t bytes = kRoundBytes + 4 * kPositionBytes + message.directory.size() * kDigestBytes;
  for (const auto& neighbour : message.neighbours) {
    bytes += kPositionBytes + keys_bytes(neighbour.keys);
  }
  return bytes;
}

std::size_t content_bytes(const PeerShares& message) {
  return kRoundBytes + shares_bytes(message.shares);
}

std::size_t content_bytes(const SurvivorSet& message) {
  return kRoundBytes + message.survivors.size();
}

std::size_t content_bytes(const SurvivorConfirmations& message) {
  return kRoundBytes + message.confirmations.size() * (kIdBytes + kSignatureBytes);
}

}  // namespace covey
