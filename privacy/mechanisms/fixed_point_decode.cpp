#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "mechanisms/fixed_point_layout.hpp"

namespace covey::privacy {
namespace {

Error not_a_sum(std::string what, std::uint32_t count) {
  return failed(
      fmt::format("the unmasked sum is not one of {} contributions: {}; a device masked or "
                  "encoded its update wrongly",
                  count, what));
}

/// Reads packed coordinates chunk by chunk.
class Decoder {
 public:
  Decoder(const SumFormat& format, std::span<const std::uint64_t> words, std::uint32_t count)
      : format_(format),
        words_(words),
        count_(count),
        margin_(static_cast<std::int64_t>(noise_margin(format))),
        chunk_(kChunk) {}

  Result<void> decode(DecodedSum& sum);

 private:
  void unpack_chunk(const PackedFormat& part, std::size_t start);
  Result<void> take_vector(std::size_t start, std::size_t end, std::vector<double>& vector) const;
  Result<double> scalar(std::size_t index, std::span<const std::int64_t> digits) const;

  const SumFormat& format_;
  std::span<const std::uint64_t> words_;
  std::uint32_t count_;
  std::int64_t margin_;  ///< M
  std::vector<std::int64_t> chunk_;
  std::vector<std::uint64_t> part_words_;
  std::vector<std::uint64_t> margin_words_;
};

// Under noise a coordinate's sum may be below 0; M is added while it is still packed, where that is
// only a carry, so that what is unpacked is in [0, 2^m).
void Decoder::unpack_chunk(const PackedFormat& part, std::size_t start) {
  const std::size_t first = start / PackedFormat::kBlockCoordinates * part.block_words();
  const auto words = words_.subspan(first, part.words());
  if (margin_ == 0) {
    unpack(part, words, std::span(chunk_).first(part.coordinates));
    return;
  }
  for (std::size_t i = 0; i < part.coordinates; ++i) {
    chunk_[i] = start + i < format_.summed ? margin_ : 0;
  }
  part_words_.assign(words.begin(), words.end());
  margin_words_.resize(part.words());
  pack(part, std::span(chunk_).first(part.coordinates), margin_words_);
  add_packed(part, std::as_bytes(std::span(margin_words_)), part_words_);
  unpack(part, part_words_, std::span(chunk_).first(part.coordinates));
}

Result<void> Decoder::take_vector(std::size_t start, std::size_t end,
                                  std::vector<double>& vector) const {
  const std::int64_t offset = count_ * offset_of(format_.plan);
  const std::int64_t largest = 2 * offset + 2 * margin_;
  const double unit = format_.quantum * largest_weight(format_);
  std::int64_t low = 0;
  std::int64_t high = 0;
  for (std::size_t i = 0; i < end - start; ++i) {
    low = std::min(low, chunk_[i]);
    high = std::max(high, chunk_[i]);
    vector[start + i] = unit * static_cast<double>(chunk_[i] - (offset + margin_));
  }
  if (low >= 0 && high <= largest) return {};
  const auto bad = std::find_if(chunk_.begin(), chunk_.end(),
                                [&](std::int64_t x) { return x < 0 || x > largest; });
  return not_a_sum(fmt::format("coordinate {} is {}, outside {} to {}",
                               start + static_cast<std::size_t>(bad - chunk_.begin()),
                               *bad - margin_, -margin_, largest - margin_),
                   count_);
}

// Digits from the highest: behind digit j what is read so far is sum_i floor(x_i / 2^(b j)), where
// x_i < 2^107 is a device's stored scalar, so at most floor(count * 2^107 / 2^(b j)). Checking that
// before the next shift keeps all below 2^128.
Result<double> Decoder::scalar(std::size_t index, std::span<const std::int64_t> digits) const {
  const std::uint32_t bits = format_.plan.bits;
  const std::int64_t largest_digit = count_ * ((std::int64_t{1} << bits) - 1);
  const Uint128 limit = Uint128{count_} << kScalarBits;
  Uint128 sum = 0;
  for (std::size_t j = digits.size(); j-- > 0;) {
    sum = (sum << bits) + static_cast<Uint128>(digits[j]);
    if (digits[j] < 0 || digits[j] > largest_digit || sum > limit >> (bits * j)) {
      return not_a_sum(fmt::format("digit {} of scalar {} is {}", j, index, digits[j]), count_);
    }
  }
  const auto units = static_cast<Int128>(sum) - static_cast<Int128>(count_ * kScalarOffset);
  return std::ldexp(static_cast<double>(units),
                    -kScalarFractionBits);  // rounded once, in the conversion
}

Result<void> Decoder::decode(DecodedSum& sum) {
  std::vector<std::int64_t> digits;
  sum.vector.resize(format_.summed);
  for (std::size_t start = 0; start < format_.packed.coordinates; start += kChunk) {
    const PackedFormat part{format_.packed.sum_bits,
                            std::min(kChunk, format_.packed.coordinates - start)};
    const std::size_t end = start + part.coordinates;
    const std::size_t vector_end = std::clamp(format_.summed, start, end);
    unpack_chunk(part, start);
    COVEY_TRY(take_vector(start, vector_end, sum.vector));
    digits.insert(digits.end(), chunk_.begin() + static_cast<std::ptrdiff_t>(vector_end - start),
                  chunk_.begin() + static_cast<std::ptrdiff_t>(end - start));
  }
  const std::size_t per_scalar = digits_of(format_.plan);
  for (std::size_t i = 0; i < format_.num_scalars; ++i) {
    COVEY_ASSIGN(const double value,
                 scalar(i, std::span(digits).subspan(i * per_scalar, per_scalar)));
    sum.scalars.push_back(value);
  }
  return {};
}

}  // namespace

namespace {

/// Back to R^d. A coordinate that was drawn with probability summed / d stands for d / summed of
/// them.
void spread_out(const SumFormat& format, std::uint64_t seed, RoundNumber round,
                std::vector<double>& vector) {
  const auto chosen = summed_coordinates(format, seed, round);
  const double scale = format.least_error ? 1
                                          : static_cast<double>(format.dimension) /
                                                static_cast<double>(format.summed);
  std::vector<double> whole(format.dimension);
  for (std::size_t i = 0; i < chosen.size(); ++i) whole[chosen[i]] = scale * vector[i];
  vector = std::move(whole);
}

}  // namespace

Result<DecodedSum> decode_sum(const SumFormat& format, std::span<const std::uint64_t> words,
                              std::uint32_t count, std::uint64_t seed, RoundNumber round) {
  if (words.size() != format.packed.words()) {
    return invalid_argument(fmt::format("a packed sum of {} words is read as one of {}",
                                        words.size(), format.packed.words()));
  }
  if (count > format.plan.max_devices) {
    return invalid_argument(fmt::format("{} contributions are in a sum that has room for {}", count,
                                        format.plan.max_devices));
  }
  DecodedSum sum;
  Decoder decoder(format, words, count);
  COVEY_TRY(decoder.decode(sum));
  if (format.summed < format.dimension) spread_out(format, seed, round, sum.vector);
  if (format.plan.rotation) rotate_back(sum.vector, seed, round);
  return sum;
}

Result<std::vector<double>> decode_contribution(const SumFormat& format,
                                                std::span<const std::byte> packed,
                                                const ContributionDraw& draw) {
  if (packed.size() != format.bytes()) {
    return invalid_argument(fmt::format("a contribution of {} bytes is read as one of {}",
                                        packed.size(), format.bytes()));
  }
  std::vector<std::uint64_t> words(format.packed.words());
  std::memcpy(words.data(), packed.data(), packed.size());
  COVEY_ASSIGN(DecodedSum alone, decode_sum(format, words, 1, draw.seed, draw.round));
  return std::move(alone.vector);
}

}  // namespace covey::privacy
