#pragma once

#include "masking/lanes.hpp"

/// Packed vectors over vectors of 2, 4 or 8 lanes, which the compiler turns into the instructions
/// of the file that includes this. All is in an unnamed namespace (a copy each), no standard
/// template is used.
namespace covey::privacy::masking {
namespace {

inline constexpr std::size_t kRowLanes = 8;
inline constexpr std::uint32_t kCoordinatesPerLane = 64;

template <int Bytes>
struct LanesOf {
  typedef std::uint64_t Unsigned __attribute__((vector_size(Bytes)));
  typedef std::int64_t Signed __attribute__((vector_size(Bytes)));
  static constexpr std::size_t kWidth = Bytes / 8;

  static Unsigned load(const void* from) {
    Unsigned value;
    __builtin_memcpy(&value, from, Bytes);
    return value;
  }
  static Signed load_signed(const void* from) {
    Signed value;
    __builtin_memcpy(&value, from, Bytes);
    return value;
  }
  static void store(void* to, Unsigned value) { __builtin_memcpy(to, &value, Bytes); }
};

/// One group of lanes of one block. A coordinate gives its low m bits to the word at hand; what is
/// above (its sign, too) is carried into the next coordinate, and out of the top one is dropped.
template <typename L>
inline void pack_lanes(std::uint32_t m, const std::int64_t* values, std::uint64_t* words) {
  const std::uint64_t mask = (std::uint64_t{1} << m) - 1;
  typename L::Signed carry{};
  typename L::Unsigned word{};
  std::uint32_t shift = 0;
  for (std::uint32_t j = 0; j < kCoordinatesPerLane; ++j, values += kRowLanes) {
    const typename L::Signed value = L::load_signed(values) + carry;
    carry = value >> m;
    const auto digit = reinterpret_cast<typename L::Unsigned>(value) & mask;
    word |= digit << shift;
    shift += m;
    if (shift >= 64) {
      L::store(words, word);
      words += kRowLanes;
      shift -= 64;
      // m - shift bits are stored; m <= 56, so the shift is one by less than 64.
      word = digit >> (m - shift);
    }
  }
}

template <typename L>
inline void unpack_lanes(std::uint32_t m, const std::uint64_t* words, std::int64_t* values) {
  const std::uint64_t mask = (std::uint64_t{1} << m) - 1;
  typename L::Unsigned word = L::load(words);
  std::uint32_t shift = 0, row = 0;
  for (std::uint32_t j = 0; j < kCoordinatesPerLane; ++j, values += kRowLanes) {
    typename L::Unsigned digit = word >> shift;
    shift += m;
    if (shift >= 64) {
      shift -= 64;
      if (++row < m) word = L::load(words + kRowLanes * row);
      if (shift > 0) digit |= word << (m - shift);
    }
    L::store(values, digit & mask);
  }
}

/// sum + words + carry up the rows. -w = ~w + 1: the one is the carry into the lowest row. The
/// carry out of 64 bits is the majority of the two top bits and the complement of the result's.
template <typename L, bool Subtract>
inline void add_lanes(std::uint32_t m, const std::uint8_t* words, std::uint64_t* sum) {
  typename L::Unsigned carry = typename L::Unsigned{} + (Subtract ? 1u : 0u);
  for (std::uint32_t row = 0; row < m; ++row) {
    const auto loaded = L::load(words + 64 * row);
    const auto word = Subtract ? ~loaded : loaded;
    const auto before = L::load(sum + kRowLanes * row);
    const auto after = before + word + carry;
    L::store(sum + kRowLanes * row, after);
    carry = ((before & word) | ((before | word) & ~after)) >> 63;
  }
}

template <typename L>
void pack_blocks(std::uint32_t m, std::size_t blocks, const std::int64_t* values,
                 std::uint64_t* words) {
  for (; blocks > 0; --blocks, values += kCoordinatesPerLane * kRowLanes, words += kRowLanes * m) {
    for (std::size_t lane = 0; lane < kRowLanes; lane += L::kWidth) {
      pack_lanes<L>(m, values + lane, words + lane);
    }
  }
}

template <typename L>
void unpack_blocks(std::uint32_t m, std::size_t blocks, const std::uint64_t* words,
                   std::int64_t* values) {
  for (; blocks > 0; --blocks, values += kCoordinatesPerLane * kRowLanes, words += kRowLanes * m) {
    for (std::size_t lane = 0; lane < kRowLanes; lane += L::kWidth) {
      unpack_lanes<L>(m, words + lane, values + lane);
    }
  }
}

template <typename L, bool Subtract>
void add_blocks(std::uint32_t m, std::size_t blocks, const void* words, std::uint64_t* sum) {
  const auto* bytes = static_cast<const std::uint8_t*>(words);
  for (; blocks > 0; --blocks, bytes += 8 * kRowLanes * m, sum += kRowLanes * m) {
    for (std::size_t lane = 0; lane < kRowLanes; lane += L::kWidth) {
      add_lanes<L, Subtract>(m, bytes + 8 * lane, sum + lane);
    }
  }
}

template <int Bytes>
inline constexpr LaneKernels kLaneKernels = {
    pack_blocks<LanesOf<Bytes>>, unpack_blocks<LanesOf<Bytes>>, add_blocks<LanesOf<Bytes>, false>,
    add_blocks<LanesOf<Bytes>, true>};

}  // namespace
}  // namespace covey::privacy::masking
