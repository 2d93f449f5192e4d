#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/privacy_plan.hpp>

/// The messages of secure aggregation (Bonawitz et al. 2017; Bell et al. 2020), as values. Bytes that
/// mean something only to `privacy/` are opaque here.
namespace covey {

/// X25519 or Ed25519.
using PublicKey = std::array<std::uint8_t, 32>;
using Signature = std::array<std::uint8_t, 64>;

/// What every message of one secure sum names.
struct AggregationRound {
  RunId run{};
  RoundNumber round{};
  AggregationId id;
  auto operator<=>(const AggregationRound&) const = default;
};

/// A device's long-lived Ed25519 key, vouched for by the run's authority.
struct IdentityCertificate {
  ClientId client{};
  PublicKey key{};
  std::vector<std::byte> signature;  ///< the authority's, DER (ECDSA) or 64 bytes (Ed25519)
  bool operator==(const IdentityCertificate&) const = default;
};

/// A device's X25519 keys for one round.
struct KeyAdvertisement {
  ClientId client{};
  PublicKey cipher_key{};  ///< for shares sent from device to device
  PublicKey mask_key{};    ///< for pairwise masks; its secret is shared, and revealed on a drop-out
  Signature signature{};   ///< of the device's identity; zero without a malicious server in mind
  IdentityCertificate identity;  ///< likewise empty
  bool operator==(const KeyAdvertisement&) const = default;
};

// ---- device to server

struct AdvertiseKeys {
  AggregationRound round;
  KeyAdvertisement keys;  ///< keys.client is set by the server from the connection's certificate
  bool operator==(const AdvertiseKeys&) const = default;
};

/// 16 bytes of SHA-256 of a share, by which the server recognises a wrong one.
using ShareCommitment = std::array<std::uint8_t, 16>;

/// Shares of both secrets, from one device for another, encrypted so that the server cannot read them.
struct EncryptedShares {
  ClientId peer{};  ///< on the way up: for whom; on the way down: from whom
  std::vector<std::byte> ciphertext;
  ShareCommitment self_seed{};
  ShareCommitment mask_key{};
  bool operator==(const EncryptedShares&) const = default;
};

struct ShareKeys {
  AggregationRound round;
  Digest self_seed;  ///< commitment to the seed of the device's own mask
  ShareCommitment own_share{};         ///< of the self seed's share that the device keeps
  std::vector<EncryptedShares> shares; ///< one for each neighbour
  bool operator==(const ShareKeys&) const = default;
};

/// "I was told this set of survivors", signed: a server that tells two sets cannot get both confirmed.
struct ConfirmSurvivors {
  AggregationRound round;
  Digest survivors;
  Signature signature{};
  bool operator==(const ConfirmSurvivors&) const = default;
};

/// A share that the device holds of one of `owner`'s secrets.
struct RevealedShare {
  ClientId owner{};
  bool self_seed = false;  ///< true: of a survivor's self seed; false: of a dropped device's mask key
  std::vector<std::byte> share;
  bool operator==(const RevealedShare&) const = default;
};

struct Unmask {
  AggregationRound round;
  std::vector<RevealedShare> shares;
  std::vector<ClientId> unreadable;  ///< whose encrypted shares did not open or did not match
  bool operator==(const Unmask&) const = default;
};

// ---- server to device

struct Neighbour {
  std::uint32_t position = 0;  ///< in the directory of all advertised devices, sorted by client
  KeyAdvertisement keys;
  bool operator==(const Neighbour&) const = default;
};

struct NeighbourKeys {
  AggregationRound round;
  std::uint32_t devices = 0;    ///< n: how many advertised keys
  std::uint32_t position = 0;   ///< this device's
  std::uint32_t degree = 0;     ///< k
  std::uint32_t threshold = 0;  ///< t: shares that reconstruct a secret
  std::vector<Neighbour> neighbours;
  /// Malicious server only: SHA-256 of each device's advertisement, by position. The graph follows
  /// from it, so a device sees that the server did not choose its neighbours.
  std::vector<Digest> directory;
  bool operator==(const NeighbourKeys&) const = default;
};

struct PeerShares {
  AggregationRound round;
  std::vector<EncryptedShares> shares;  ///< of the neighbours that shared keys
  bool operator==(const PeerShares&) const = default;
};

struct SurvivorSet {
  AggregationRound round;
  std::vector<std::byte> survivors;  ///< bit i (of byte i / 8, from the lowest): position i is in the sum
  bool operator==(const SurvivorSet&) const = default;
};

struct SurvivorConfirmations {
  AggregationRound round;
  struct Confirmation {
    ClientId client{};
    Signature signature{};
    bool operator==(const Confirmation&) const = default;
  };
  std::vector<Confirmation> confirmations;  ///< of neighbours
  bool operator==(const SurvivorConfirmations&) const = default;
};

}  // namespace covey
