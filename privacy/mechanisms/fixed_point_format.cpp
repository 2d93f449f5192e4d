#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "mechanisms/fixed_point_layout.hpp"

namespace covey::privacy {
namespace {

constexpr std::uint32_t kMinBits = 2;
constexpr std::uint32_t kMaxBits = 24;
/// What NoiseSampler takes: sigma^2 from 2^-20, up to 2^80 (discrete Gaussian) or 2^40 (Skellam).
constexpr double kMinLatticeStddev = 0x1p-10;
constexpr double kMaxGaussianStddev = 0x1p40;
constexpr double kMaxSkellamStddev = 0x1p20;
/// log2 of the probability that the noise leaves its margin anywhere in a sum.
constexpr int kMarginBits = 40;
/// ln 2, rounded up.
constexpr double kLn2 = 0.69314718056;

bool positive(double x) { return x > 0 && std::isfinite(x); }

Result<void> check_plan(const SecureAggregationPlan& plan, const PrivacyPlan& privacy) {
  if (plan.bits < kMinBits || plan.bits > kMaxBits) {
    return invalid_argument(
        fmt::format("secure aggregation with {} bits a coordinate: {} to {} are possible",
                    plan.bits, kMinBits, kMaxBits));
  }
  if (!positive(plan.clip)) {
    return invalid_argument(fmt::format(
        "secure aggregation clips coordinates to {}: it must be finite and above 0", plan.clip));
  }
  if (!privacy.enabled() && !positive(plan.max_weight)) {
    return invalid_argument(fmt::format(
        "secure aggregation needs the largest weight of an update, finite and above 0, not {}: "
        "weights above it are cut",
        plan.max_weight));
  }
  if (plan.max_devices == 0 || plan.max_devices > kMaxDevices) {
    return invalid_argument(fmt::format("a secure sum of at most {} devices: 1 to {} are possible",
                                        plan.max_devices, kMaxDevices));
  }
  if (!(plan.subsample > 0 && plan.subsample <= 1)) {
    return invalid_argument(fmt::format(
        "secure aggregation of a share of {} of the coordinates: it must be above 0 and at most 1",
        plan.subsample));
  }
  if (plan.subsample < 1 && privacy.enabled()) {
    return invalid_argument(
        "a secure sum of some of the coordinates is scaled up by what it leaves out, and with it "
        "the "
        "noise of differential privacy, which is counted on a whole vector");
  }
  return {};
}

Result<void> check_noise(const SumFormat& format) {
  const PrivacyPlan& privacy = format.privacy;
  if (!has_lattice_noise(privacy)) return {};
  if (!privacy.enabled() || !positive(privacy.clip_norm)) {
    return invalid_argument(
        fmt::format("noise on a secure sum hides updates of a bounded norm only: clip them, to a "
                    "norm that is finite "
                    "and above 0, not {}",
                    privacy.clip_norm));
  }
  constexpr double kLargestNorm = 0x1p50;  // in steps of the lattice: squares stay below 2^128
  if (privacy.clip_norm / format.quantum > kLargestNorm) {
    return invalid_argument(fmt::format("a clip norm of {} is too many steps of {}",
                                        privacy.clip_norm, format.quantum));
  }
  const double stddev = lattice_stddev(format);
  const double largest =
      privacy.noise == DeviceNoise::kSkellam ? kMaxSkellamStddev : kMaxGaussianStddev;
  if (!(stddev >= kMinLatticeStddev && stddev <= largest)) {
    return invalid_argument(fmt::format(
        "a device's noise of {} is {} steps of the fixed-point lattice ({} each): {} to {} are "
        "possible; change secure-aggregation.bits or secure-aggregation.clip",
        privacy.noise_stddev, stddev, format.quantum, kMinLatticeStddev, largest));
  }
  return {};
}

}  // namespace

// The sum of n independent draws X, by Chernoff and a union over both signs and d coordinates: with
// s = ln(2 d) + 40 ln 2, P(some |X| > M) <= 2 d e^-s = 2^-40.
// Discrete Gaussian: E e^(tX) <= e^(t^2 sigma^2 / 2) (Canonne, Kamath and Steinke 2020, Lemma 17),
// so M = sqrt(2 n sigma^2 s). Skellam of variance v = n mu: ln E e^(tX) = v (cosh t - 1) <= v t^2 /
// (2 (1 - t / 3)), which is sub-gamma with scale 1 / 3, so M = sqrt(2 v s) + s / 3 (Boucheron,
// Lugosi and Massart 2013, section 2.4). Only products, sums and square roots: every machine must
// find the same modulus.
double noise_margin(const SumFormat& format) {
  if (!has_lattice_noise(format.privacy)) return 0;
  const double s = kLn2 * (kMarginBits + 1 +
                           static_cast<int>(std::bit_width(format.dimension)));  // d < 2^bit_width
  const double stddev = lattice_stddev(format);
  const double variance = stddev * stddev * format.plan.max_devices;
  const double tail = std::sqrt(2 * variance * s);
  return std::ceil(format.privacy.noise == DeviceNoise::kSkellam ? tail + s / 3 : tail);
}

double largest_squared_norm(const SumFormat& format) {
  const double c = format.privacy.clip_norm / format.quantum;
  const auto d = static_cast<double>(format.dimension);
  const double root_d = std::sqrt(d);
  const double always = (c + root_d) * (c + root_d);  // rounding moves a coordinate by less than 1
  // 2 ln(1 / beta) = 1.
  return std::min(always, c * c + d / 4 + c + root_d / 2);
}

Result<SumFormat> SumFormat::make(const SecureAggregationPlan& plan, const PrivacyPlan& privacy,
                                  std::size_t dimension, std::size_t num_scalars) {
  COVEY_TRY(check_plan(plan, privacy));
  if (dimension == 0) return invalid_argument("a secure sum of vectors without a coordinate");
  SumFormat format;
  format.plan = plan;
  format.privacy = privacy;
  format.dimension = dimension;
  format.num_scalars = num_scalars;
  format.summed = std::min(
      dimension,
      static_cast<std::size_t>(std::ceil(plan.subsample * static_cast<double>(dimension))));
  format.quantum = plan.clip / static_cast<double>(offset_of(plan));  // 2 C / (2^b - 2)
  if (!positive(format.quantum)) {
    return invalid_argument(
        fmt::format("secure aggregation clips coordinates to {}, too little for {} bits", plan.clip,
                    plan.bits));
  }
  COVEY_TRY(check_noise(format));

  // One device's coordinate is at most 2^b - 2 and a scalar's digit at most 2^b - 1, neither below
  // 0, so a sum without noise is in [0, n (2^b - 1)]. Noise widens that to [-M, n (2^b - 1) + M];
  // decoding adds M first. All of 2 M + n (2^b - 1) must be below 2^m. (n (2^b - 1) < 2^44: exact
  // in double.)
  const double range = 2 * noise_margin(format) +
                       plan.max_devices * static_cast<double>((std::uint64_t{1} << plan.bits) - 1);
  std::uint32_t sum_bits = PackedFormat::kMinSumBits;
  while (sum_bits <= PackedFormat::kMaxSumBits &&
         range >= std::ldexp(1.0, static_cast<int>(sum_bits))) {
    ++sum_bits;
  }
  // What check_plan and check_noise let through fits: M < 2^40 sqrt(2 * 2^20 * 105 ln 2) < 2^54.
  COVEY_ASSERT(sum_bits <= PackedFormat::kMaxSumBits);
  format.packed = {sum_bits, format.summed + num_scalars * digits_of(plan)};
  return format;
}

// Knuth, The Art of Computer Programming, volume 2, section 3.4.2, Algorithm S.
std::vector<std::uint32_t> summed_coordinates(const SumFormat& format, std::uint64_t seed,
                                              RoundNumber round) {
  RandomStream random(seed, RandomPurpose::kSubsample, round);
  std::vector<std::uint32_t> chosen;
  chosen.reserve(format.summed);
  for (std::size_t i = 0; i < format.dimension && chosen.size() < format.summed; ++i) {
    if (random.below(format.dimension - i) < format.summed - chosen.size()) {
      chosen.push_back(static_cast<std::uint32_t>(i));
    }
  }
  return chosen;
}

}  // namespace covey::privacy
