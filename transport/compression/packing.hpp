#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

/// Codes of 1 to 8 bits, one a byte, from and to bytes without gaps: eight at a time in a word.
namespace covey::compression {

namespace packing_detail {

/// Fields of `width` bits that begin every `stride` bits of a word.
constexpr std::uint64_t fields(unsigned width, unsigned stride) {
  const std::uint64_t field = width >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << width) - 1;
  std::uint64_t all = 0;
  for (unsigned at = 0; at < 64; at += stride) all |= field << at;
  return all;
}

/// Eight codes in the lowest 8 * Bits bits.
template <unsigned Bits>
std::uint64_t pack(std::uint64_t codes) {
  constexpr unsigned kGap = 8 - Bits;
  codes = (codes | codes >> kGap) & fields(2 * Bits, 16);
  codes = (codes | codes >> 2 * kGap) & fields(4 * Bits, 32);
  return (codes | codes >> 4 * kGap) & fields(8 * Bits, 64);
}

template <unsigned Bits>
std::uint64_t unpack(std::uint64_t packed) {
  constexpr unsigned kGap = 8 - Bits;
  packed = (packed | packed << 4 * kGap) & fields(4 * Bits, 32);
  packed = (packed | packed << 2 * kGap) & fields(2 * Bits, 16);
  return (packed | packed << kGap) & fields(Bits, 8);
}

}  // namespace packing_detail

/// codes: `count` and then zeros up to a multiple of eight. Writes ceil(count * Bits / 8) bytes.
template <unsigned Bits>
void pack_codes(const std::uint8_t* codes, std::size_t count, std::byte* out) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8, out += Bits) {
    std::uint64_t word;
    std::memcpy(&word, codes + i, sizeof word);
    word = packing_detail::pack<Bits>(word);
    std::memcpy(out, &word, Bits);
  }
  if (i == count) return;
  std::uint64_t word;
  std::memcpy(&word, codes + i, sizeof word);
  word = packing_detail::pack<Bits>(word);
  std::memcpy(out, &word, ((count - i) * Bits + 7) / 8);
}

/// codes: room for `count` up to a multiple of eight.
template <unsigned Bits>
void unpack_codes(const std::byte* bytes, std::size_t count, std::uint8_t* codes) {
  for (std::size_t i = 0; i < count; i += 8, bytes += Bits) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, i + 8 <= count ? Bits : ((count - i) * Bits + 7) / 8);
    word = packing_detail::unpack<Bits>(word);
    std::memcpy(codes + i, &word, sizeof word);
  }
}

/// Calls `use` with std::integral_constant-like bits 1, 2, 3, 4 or 8.
template <typename Use>
void with_bits(unsigned bits, Use use) {
  switch (bits) {
    case 1:
      return use.template operator()<1>();
    case 2:
      return use.template operator()<2>();
    case 3:
      return use.template operator()<3>();
    case 4:
      return use.template operator()<4>();
    default:
      return use.template operator()<8>();
  }
}

}  // namespace covey::compression
