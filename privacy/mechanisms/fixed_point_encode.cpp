#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <covey/privacy/samplers.hpp>
#include <cstring>
#include <optional>

#include "mechanisms/fixed_point_kernels.hpp"
#include "mechanisms/fixed_point_layout.hpp"

namespace covey::privacy {
namespace {

static_assert(std::endian::native == std::endian::little, "packed vectors are little-endian");

bool all_finite(std::span<const float> values) {
  // Of non-negative floats the larger has the larger bits; infinities and NaNs lie above all.
  std::int32_t largest = 0;
  for (const float x : values)
    largest = std::max(largest, std::bit_cast<std::int32_t>(x) & 0x7fffffff);
  return largest < 0x7f800000;
}

Result<void> check(const SumFormat& format, std::span<const float> update, double weight,
                   std::span<const double> scalars) {
  if (update.size() != format.dimension || scalars.size() != format.num_scalars) {
    return invalid_argument(fmt::format(
        "an update of {} parameters and {} scalars cannot enter a secure sum of {} and {}",
        update.size(), scalars.size(), format.dimension, format.num_scalars));
  }
  if (!all_finite(update)) {
    const auto bad =
        std::find_if(update.begin(), update.end(), [](float x) { return !std::isfinite(x); });
    return invalid_argument(
        fmt::format("coordinate {} of the update is {}: a secure sum takes finite ones",
                    bad - update.begin(), *bad));
  }
  if (!(weight >= 0) || !std::isfinite(weight)) {
    return invalid_argument(fmt::format(
        "an update of weight {} cannot enter a secure sum: it must be finite and not below 0",
        weight));
  }
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    if (std::abs(scalars[i]) < kScalarLimit) continue;
    return invalid_argument(fmt::format(
        "scalar {} is {}: it must be finite and below {} in magnitude to enter a secure sum", i,
        scalars[i], kScalarLimit));
  }
  return {};
}

/// One contribution on its way to integers. What it holds is the device's own until it is masked.
class Encoder {
 public:
  Encoder(const SumFormat& format, std::span<const float> values, double weight,
          std::span<const double> scalars, const ContributionDraw& draw)
      : format_(format), values_(values), kernel_(rounding_kernels().front()), chunk_(kChunk) {
    const double largest = largest_weight(format);
    rounding_.factor = format.privacy.enabled() ? 1 : std::min(weight, largest) / largest;
    rounding_.clip = format.plan.clip;
    rounding_.inverse_quantum = 1 / format.quantum;
    rounding_.offset = static_cast<double>(offset_of(format.plan));
    RandomStream random(draw.seed, RandomPurpose::kUpdateRounding, draw.round, draw.client);
    for (auto& word : rounding_.key) word = random.next_u32();
    if (format.least_error) {
      rounding_.spread = 0;
      rounding_.centre = 0.5;
    }
    make_digits(scalars);
  }
  ~Encoder() { wipe(std::as_writable_bytes(std::span(chunk_))); }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  Result<void> choose_rounding();
  Result<std::uint64_t> encode(NoiseSampler* noise, std::vector<std::byte>& packed);

 private:
  void make_digits(std::span<const double> scalars);
  std::uint64_t round(std::size_t start, std::size_t count);
  void add_noise(NoiseSampler& noise, std::span<std::int64_t> points);

  const SumFormat& format_;
  std::span<const float> values_;
  const RoundingKernel& kernel_;
  Rounding rounding_;
  std::vector<std::int64_t> chunk_;
  std::vector<std::int64_t> digits_;  ///< of all scalars, lowest first
  std::vector<std::int64_t> noise_;
};

void Encoder::make_digits(std::span<const double> scalars) {
  const std::uint32_t bits = format_.plan.bits;
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  for (const double scalar : scalars) {
    // Scaling by a power of two is exact; nearbyint rounds to nearest, ties to even, as
    // ExactScalarSum.
    const auto units = static_cast<Int128>(std::nearbyint(std::ldexp(scalar, kScalarFractionBits)));
    Uint128 rest = kScalarOffset + static_cast<Uint128>(units);
    for (std::uint32_t digit = 0; digit < digits_of(format_.plan); ++digit, rest >>= bits) {
      digits_.push_back(static_cast<std::int64_t>(static_cast<std::uint64_t>(rest) & mask));
    }
  }
}

// Rounds coordinates [start, start + count) into the chunk. The kernel's blocks are whole: the last
// of the vector is filled up with zeros, which are never clipped.
std::uint64_t Encoder::round(std::size_t start, std::size_t count) {
  const std::size_t whole = count / kRoundingBlock;
  const std::size_t first = start / kRoundingBlock;
  std::uint64_t clipped =
      kernel_.round(rounding_, values_.data() + start, first, whole, chunk_.data());
  const std::size_t done = whole * kRoundingBlock;
  if (done < count) {
    std::array<float, kRoundingBlock> tail{};
    std::copy_n(values_.data() + start + done, count - done, tail.begin());
    clipped += kernel_.round(rounding_, tail.data(), first + whole, 1, chunk_.data() + done);
  }
  return clipped;
}

// Conditional randomised rounding (Kairouz, Liu and Steinke 2021, Algorithm 1): other draws until
// the lattice point is within the norm that the accountant counts with. That comparison is between
// integers, so the sensitivity on the lattice holds whatever happened in floating point before; the
// noise is exact (NoiseSampler). The draws need not be secret: the guarantee holds for every
// rounding.
Result<void> Encoder::choose_rounding() {
  double squared = 0;
  for (const float x : values_) squared += static_cast<double>(x) * x;
  const double norm = std::sqrt(squared);
  // The rotation and the arithmetic behind the device's clipping may have added some units in the
  // last place.
  if (norm > format_.privacy.clip_norm) rounding_.factor = format_.privacy.clip_norm / norm;

  // Points are below 2^23, so a chunk's squares are below 2^58. The bound is rounded down, by more
  // than the error of its own arithmetic.
  const auto largest = static_cast<Uint128>((1 - 0x1p-48) * largest_squared_norm(format_));
  const std::int64_t offset = offset_of(format_.plan);
  // A draw is good with probability >= 1 - beta = 0.39: 400 bad ones in a row have 2^-280.
  constexpr std::uint32_t kMaxAttempts = 400;
  for (std::uint32_t attempt = 0; attempt < kMaxAttempts; ++attempt) {
    rounding_.counter = {attempt, 0, 0};
    Uint128 sum = 0;
    for (std::size_t start = 0; start < format_.summed; start += kChunk) {
      const std::size_t count = std::min(kChunk, format_.summed - start);
      round(start, count);
      std::uint64_t squares = 0;
      for (std::size_t i = 0; i < count; ++i) {
        const std::int64_t point = chunk_[i] - offset;
        squares += static_cast<std::uint64_t>(point * point);
      }
      sum += squares;
    }
    if (sum <= largest) return {};
  }
  return failed(
      fmt::format("no rounding of an update of norm {} was within the norm {} that its privacy is "
                  "counted with",
                  norm, format_.quantum * std::sqrt(largest_squared_norm(format_))));
}

void Encoder::add_noise(NoiseSampler& noise, std::span<std::int64_t> points) {
  noise_.resize(points.size());
  const double stddev = lattice_stddev(format_);
  if (format_.privacy.noise == DeviceNoise::kSkellam) {
    noise.skellam(stddev * stddev, noise_);
  } else {
    noise.discrete_gaussian(stddev, noise_);
  }
  for (std::size_t i = 0; i < points.size(); ++i) points[i] += noise_[i];
  wipe(std::as_writable_bytes(std::span(noise_)));
}

Result<std::uint64_t> Encoder::encode(NoiseSampler* noise, std::vector<std::byte>& packed) {
  packed.resize(format_.bytes());
  std::vector<std::uint64_t> words;
  std::uint64_t clipped = 0;
  std::size_t written = 0;
  for (std::size_t start = 0; start < format_.packed.coordinates; start += kChunk) {
    const PackedFormat part{format_.packed.sum_bits,
                            std::min(kChunk, format_.packed.coordinates - start)};
    const std::size_t end = start + part.coordinates;
    const std::size_t vector_end = std::clamp(format_.summed, start, end);
    if (vector_end > start) {
      clipped += round(start, vector_end - start);
      if (noise != nullptr) add_noise(*noise, std::span(chunk_).first(vector_end - start));
    }
    if (end > vector_end) {
      std::copy_n(digits_.begin() + static_cast<std::ptrdiff_t>(vector_end - format_.summed),
                  end - vector_end,
                  chunk_.begin() + static_cast<std::ptrdiff_t>(vector_end - start));
    }
    words.resize(part.words());
    pack(part, std::span(chunk_).first(part.coordinates), words);
    std::memcpy(packed.data() + written, words.data(), part.bytes());
    written += part.bytes();
  }
  wipe(std::as_writable_bytes(std::span(words)));
  if (noise != nullptr) COVEY_TRY(noise->status());
  return clipped;
}

}  // namespace

Result<FixedPointContribution> encode_contribution(const SumFormat& format,
                                                   std::span<const float> update, double weight,
                                                   std::span<const double> scalars,
                                                   const ContributionDraw& draw,
                                                   SecretSource& secrets) {
  COVEY_TRY(check(format, update, weight, scalars));
  std::vector<float> rotated;
  if (format.plan.rotation) {
    rotated.assign(update.begin(), update.end());
    rotate(rotated, draw.seed, draw.round);
    update = rotated;
    if (!all_finite(update)) {
      return invalid_argument("the update is too large to be rotated in single precision");
    }
  }
  if (format.summed < format.dimension) {
    const auto chosen = summed_coordinates(format, draw.seed, draw.round);
    if (!format.plan.rotation) rotated.resize(chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i) rotated[i] = update[chosen[i]];
    rotated.resize(chosen.size());
    update = rotated;
  }
  FixedPointContribution contribution;
  contribution.weight_clipped = !format.privacy.enabled() && weight > format.plan.max_weight;
  Encoder encoder(format, update, weight, scalars, draw);
  std::optional<NoiseSampler> noise;
  if (has_lattice_noise(format.privacy)) {
    COVEY_TRY(encoder.choose_rounding());
    noise.emplace(secrets);
  }
  COVEY_ASSIGN(contribution.clipped,
               encoder.encode(noise ? &*noise : nullptr, contribution.packed));
  return contribution;
}

}  // namespace covey::privacy
