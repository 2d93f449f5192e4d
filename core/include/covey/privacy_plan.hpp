#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

/// What a device is asked to do for the privacy of its update: part of the round's plan. Data only;
/// `privacy/` carries it out.
namespace covey {

/// Whom secure aggregation protects against. privacy/README.md says what each promises.
enum class ThreatModel : std::uint8_t {
  kNone = 0,            ///< updates are sent as they are
  kHonestButCurious = 1,  ///< the server follows the protocol and looks at all it sees
  kMaliciousServer = 2,   ///< the server may do anything; devices have certified identities
};

/// What masks are made with. A processor without AES instructions is faster with ChaCha20.
enum class MaskCipher : std::uint8_t { kAes128Ctr = 1, kChaCha20 = 2 };

struct SecureAggregationPlan {
  ThreatModel threat_model = ThreatModel::kNone;
  MaskCipher cipher = MaskCipher::kAes128Ctr;
  bool complete_graph = false;   ///< every pair of devices shares a mask; else k neighbours each
  std::uint32_t bits = 16;       ///< b: of one device's fixed-point coordinate, 2..24
  double clip = 1;               ///< C: coordinates are clipped to [-C, C] (after any rotation)
  double max_weight = 0;         ///< W: an update enters as min(weight, W) / W times itself; > 0
  bool rotation = false;         ///< randomised Hadamard rotation before clipping, undone on the sum
  std::uint32_t max_devices = 0; ///< n: most devices in one sum; the modulus has room for so many
  double dropout = 0.1;          ///< delta: share of devices that may vanish after sharing keys
  double corruption = 0.05;      ///< gamma: share of devices that may work with the server
  /// Share of the coordinates that enter the sum, the same for all devices of a round and drawn from its
  /// seed (random masks, Konecny et al. 2016, section 2.2); behind the rotation, if there is one. (0, 1].
  double subsample = 1;
  bool operator==(const SecureAggregationPlan&) const = default;

  bool enabled() const { return threat_model != ThreatModel::kNone; }
};

enum class ClipKind : std::uint8_t { kNone = 0, kFlat = 1, kPerLayer = 2, kAdaptive = 3 };

/// What a device adds to its own update.
enum class DeviceNoise : std::uint8_t {
  kNone = 0,
  kGaussian = 1,          ///< local differential privacy
  kDiscreteGaussian = 2,  ///< its share of the sum's noise, on the fixed-point lattice
  kSkellam = 3,
};

/// A device's half of differential privacy.
struct PrivacyPlan {
  ClipKind clip = ClipKind::kNone;
  double clip_norm = 0;  ///< S: largest l2 norm of one device's contribution, of this round
  DeviceNoise noise = DeviceNoise::kNone;
  /// Standard deviation of this device's noise per coordinate, in the update's units.
  double noise_stddev = 0;
  bool operator==(const PrivacyPlan&) const = default;

  /// Every device then counts the same, whatever its weight, and tells nothing of itself but its
  /// clipped (and noised) update.
  bool enabled() const { return clip != ClipKind::kNone; }
};

/// One attempt to sum one round securely; never used twice. Random, from the server; bound into every
/// key, signature and ciphertext.
struct AggregationId {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const AggregationId&) const = default;
};

std::string_view to_string(ThreatModel model);
std::string_view to_string(MaskCipher cipher);

}  // namespace covey
