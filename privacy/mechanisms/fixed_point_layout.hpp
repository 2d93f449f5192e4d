#pragma once

#include <covey/int128.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

/// Where a contribution's numbers stand in its packed coordinates, and how large their sums may
/// become.
namespace covey::privacy {

/// A scalar x is stored as x * 2^66 + 2^106, in (0, 2^107) for |x| < 2^40.
inline constexpr double kScalarLimit = 0x1p40;
inline constexpr int kScalarFractionBits = 66;
inline constexpr std::uint32_t kScalarBits = 107;
inline constexpr Uint128 kScalarOffset = Uint128{1} << 106;
/// 2^20 - 1 of them sum below 2^127.
inline constexpr std::uint32_t kMaxDevices = (std::uint32_t{1} << 20) - 1;

/// Coordinates that are encoded and decoded together: 8 packed blocks, 32 KiB of integers.
inline constexpr std::size_t kChunk = 8 * PackedFormat::kBlockCoordinates;

/// 2^(b-1) - 1: the lattice point of +C; stored coordinates are in [0, 2 * offset].
inline std::int64_t offset_of(const SecureAggregationPlan& plan) {
  return (std::int64_t{1} << (plan.bits - 1)) - 1;
}
inline std::uint32_t digits_of(const SecureAggregationPlan& plan) {
  return (kScalarBits + plan.bits - 1) / plan.bits;
}
/// W. Under differential privacy every device counts the same.
inline double largest_weight(const SumFormat& format) {
  return format.privacy.enabled() ? 1 : format.plan.max_weight;
}
inline bool has_lattice_noise(const PrivacyPlan& privacy) {
  return privacy.noise == DeviceNoise::kDiscreteGaussian || privacy.noise == DeviceNoise::kSkellam;
}
/// Standard deviation of one device's noise, in lattice units.
inline double lattice_stddev(const SumFormat& format) {
  return format.privacy.noise_stddev / format.quantum;
}

/// The coordinates of R^d that enter a round's sum, in order.
std::vector<std::uint32_t> summed_coordinates(const SumFormat& format, std::uint64_t seed,
                                              RoundNumber round);

/// M: the noise of a whole sum is within [-M, M] in every coordinate, except with probability below
/// 2^-40; 0 without noise on the lattice.
double noise_margin(const SumFormat& format);

/// The largest squared norm, in lattice units, that a contribution may have behind its rounding
/// under distributed differential privacy: (l2' / gamma)^2 of Kairouz, Liu and Steinke 2021,
/// equation 1, for beta = e^-1/2.
double largest_squared_norm(const SumFormat& format);

}  // namespace covey::privacy
