#include "block_quantiser.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <covey/bfloat16.hpp>
#include <cstdint>
#include <cstring>
#include <limits>

#include "packing.hpp"
#include "rounding.hpp"

namespace covey::compression {
namespace {

constexpr std::size_t kChunk = RandomHalves::kChunk;
constexpr std::size_t kLargestBlock = 256;
using Codes = std::array<std::uint8_t, kChunk>;

/// The step is normal, so that its inverse is finite, and L times it is finite.
float held(float step, int levels) {
  return std::clamp(step, std::numeric_limits<float>::min(),
                    std::numeric_limits<float>::max() / static_cast<float>(2 * levels));
}

/// The smallest that reaches `largest` in L steps; 0 for a block of zeros.
std::uint16_t covering_step(float largest, int levels) {
  if (largest == 0) return 0;
  const float step = held(largest / static_cast<float>(levels), levels);
  return static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(step) + 0xffff) >> 16);
}

/// threshold(i): round_above's for value i.
template <typename Threshold>
[[gnu::always_inline]] inline void quantise(const float* values, std::size_t count, float inverse,
                                            int levels, std::uint8_t* codes, Threshold threshold) {
  const auto limit = static_cast<float>(levels);
  for (std::size_t i = 0; i < count; ++i) {
    float steps = values[i] * inverse;
    steps = steps < limit ? steps : limit;
    steps = steps > -limit ? steps : -limit;
    codes[i] = static_cast<std::uint8_t>(round_above(steps, threshold(i)) + levels);
  }
}

void quantise_random(const float* values, std::size_t count, float step, int levels,
                     const std::uint16_t* random, std::uint8_t* codes) {
  quantise(values, count, 1 / step, levels, codes,
           [=](std::size_t i) { return random_threshold(random[i]); });
}

/// The step of least error for the multiples that `codes` are: <x, q> / <q, q>.
float best_step(const float* values, std::size_t count, int levels, const std::uint8_t* codes) {
  alignas(64) float multiples[kLargestBlock];
  for (std::size_t i = 0; i < count; ++i) {
    multiples[i] = static_cast<float>(static_cast<int>(codes[i]) - levels);
  }
  const double squares = sum_of_squares(multiples, count);
  return squares == 0 ? 0.0f
                      : static_cast<float>(sum_of_products(values, multiples, count) / squares);
}

/// To nearest, with a step found by Lloyd's two alternating improvements. From the covering step a
/// few levels would find next to nothing to keep; 1.224 root mean squares are best for {-1, 0, 1}
/// and a normal distribution (Max 1960). Keeps an error below that of sending zeros.
std::uint16_t quantise_nearest(const float* values, std::size_t count, int levels,
                               std::uint8_t* codes) {
  const float largest = largest_magnitude(values, count);
  if (largest == 0) {
    std::fill_n(codes, count, static_cast<std::uint8_t>(levels));
    return 0;
  }
  const auto round = [&](float step) {
    quantise(values, count, 1 / step, levels, codes, [](std::size_t) { return kHalf; });
  };
  float step = bf16_to_float(covering_step(largest, levels));
  if (levels == 1) {
    const double mean_square = sum_of_squares(values, count) / static_cast<double>(count);
    step = std::min(step, held(static_cast<float>(1.224 * std::sqrt(mean_square)), levels));
  }
  for (int improvement = 0; improvement < 2; ++improvement) {
    round(step);
    step = held(best_step(values, count, levels, codes), levels);
  }
  const std::uint16_t sent = float_to_bf16(step);
  round(bf16_to_float(sent));
  return sent;
}

void encode_chunk(const BlockFormat& format, std::span<const float> values,
                  const std::uint16_t* random, std::byte* steps, Codes& codes) {
  const int levels = format.levels();
  for (std::size_t start = 0; start < values.size(); start += format.block) {
    const std::size_t count = std::min(format.block, values.size() - start);
    const float* block = values.data() + start;
    std::uint16_t step = 0;
    if (random == nullptr) {
      step = quantise_nearest(block, count, levels, codes.data() + start);
    } else {
      step = covering_step(largest_magnitude(block, count), levels);
      // a step of 0 belongs to zeros, which any other step leaves zeros
      quantise_random(block, count, step == 0 ? 1 : bf16_to_float(step), levels, random + start,
                      codes.data() + start);
    }
    std::memcpy(steps, &step, sizeof step);
    steps += sizeof step;
  }
  const std::size_t padded = (values.size() + 7) / 8 * 8;
  std::fill(codes.begin() + static_cast<std::ptrdiff_t>(values.size()),
            codes.begin() + static_cast<std::ptrdiff_t>(padded), std::uint8_t{0});
}

/// Whether a code of `words` is all ones, which would be the multiple L + 1.
bool has_code_of_ones(std::span<const std::byte> bytes, unsigned bits) {
  const std::uint64_t lowest = packing_detail::fields(1, bits);
  std::uint64_t found = 0;
  const auto look = [&](std::uint64_t word) {
    for (unsigned width = 1; width < bits; width *= 2) word &= word >> width;
    found |= word & lowest;
  };
  std::size_t at = 0;
  std::uint64_t word = 0;
  for (; at + sizeof word <= bytes.size(); at += sizeof word) {
    std::memcpy(&word, bytes.data() + at, sizeof word);
    look(word);
  }
  word = 0;
  if (at < bytes.size()) std::memcpy(&word, bytes.data() + at, bytes.size() - at);
  look(word);
  return found != 0;
}

}  // namespace

void encode_blocks(const BlockFormat& format, std::span<const float> values, RandomHalves* random,
                   std::byte* out) {
  Codes codes;
  std::byte* packed = out + format.steps_bytes(values.size());
  for (std::size_t start = 0; start < values.size(); start += kChunk) {
    const auto chunk = values.subspan(start, std::min(kChunk, values.size() - start));
    encode_chunk(format, chunk, random == nullptr ? nullptr : random->next().data(), out, codes);
    out += format.steps_bytes(chunk.size());
    with_bits(format.bits,
              [&]<unsigned Bits>() { pack_codes<Bits>(codes.data(), chunk.size(), packed); });
    packed += chunk.size() * format.bits / 8;
  }
}

Result<void> check_blocks(std::string_view name, const BlockFormat& format,
                          std::span<const std::byte> bytes, std::size_t count) {
  if (bytes.size() != format.bytes(count)) {
    return malformed(fmt::format("{}: {} bytes where {} values take {}", name, bytes.size(), count,
                                 format.bytes(count)));
  }
  const std::size_t steps = format.steps_bytes(count);
  const float largest = std::numeric_limits<float>::max() / static_cast<float>(format.levels());
  for (std::size_t at = 0; at < steps; at += 2) {
    std::uint16_t step;
    std::memcpy(&step, bytes.data() + at, sizeof step);
    if (step >= 0x8000 || !(bf16_to_float(step) <= largest)) {
      return malformed(fmt::format("{}: the step of block {} is {}; steps are from 0 to {}", name,
                                   at / 2, bf16_to_float(step), largest));
    }
  }
  const auto codes = bytes.subspan(steps);
  if (has_code_of_ones(codes, format.bits)) {
    return malformed(fmt::format("{}: a value of more than {} steps", name, format.levels()));
  }
  const unsigned used = static_cast<unsigned>(count * format.bits % 8);
  if (used != 0 && std::to_integer<unsigned>(codes.back()) >> used != 0) {
    return malformed(fmt::format("{}: the bits behind the last value are not 0", name));
  }
  return {};
}

void decode_blocks(const BlockFormat& format, std::span<const std::byte> bytes,
                   std::span<float> out) {
  Codes codes;
  const std::byte* steps = bytes.data();
  const std::byte* packed = steps + format.steps_bytes(out.size());
  const int levels = format.levels();
  for (std::size_t start = 0; start < out.size(); start += kChunk) {
    const auto chunk = out.subspan(start, std::min(kChunk, out.size() - start));
    with_bits(format.bits,
              [&]<unsigned Bits>() { unpack_codes<Bits>(packed, chunk.size(), codes.data()); });
    packed += chunk.size() * format.bits / 8;
    for (std::size_t block = 0; block < chunk.size(); block += format.block, steps += 2) {
      std::uint16_t half;
      std::memcpy(&half, steps, sizeof half);
      const float step = bf16_to_float(half);
      const std::size_t end = std::min(block + format.block, chunk.size());
      for (std::size_t i = block; i < end; ++i) {
        chunk[i] = step * static_cast<float>(codes[i] - levels);
      }
    }
  }
}

}  // namespace covey::compression
