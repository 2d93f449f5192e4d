#pragma once

#include "masking/keystream.hpp"

/// What the fused kernels share. Each file that includes this is compiled for another instruction
/// set: all is in an unnamed namespace (a copy each), and no standard template is used.
namespace covey::privacy::masking {
namespace {

#define COVEY_INLINE __attribute__((always_inline)) inline

template <int... I>
struct Indices {};

/// Adds keystream to a packed vector, row after row, with a carry for each lane up the rows of a
/// block. V: a vector of 16, 32 or 64 bytes, see vectors_x86.hpp. Subtracting is adding the
/// complement and one: the complement is the caller's, the one the carry into each block.
template <typename V>
class RowAdder {
 public:
  using Type = typename V::Type;
  static constexpr int kParts = 64 / V::kBytes;  ///< vectors in a row

  COVEY_INLINE explicit RowAdder(const KeystreamTask& task)
      : start_carry_(V::broadcast_word(task.subtract ? 1 : 0)),
        sum_(task.sum),
        rows_per_block_(task.rows_per_block),
        rows_to_block_end_(task.rows_per_block) {
    for (int part = 0; part < kParts; ++part) carry_[part] = start_carry_;
  }

  /// Vector I of a piece: part I % kParts of its row I / kParts. The carry out of 64 bits is the
  /// majority of the two top bits and the complement of the result's.
  template <int I>
  COVEY_INLINE void add(Type keystream) {
    constexpr int kPart = I % kParts;
    std::uint64_t* words = sum_ + I * (V::kBytes / 8);
    const Type before = V::load(words);
    const Type after = V::add(V::add(before, keystream), carry_[kPart]);
    V::store(words, after);
    carry_[kPart] = V::carry_out(before, keystream, after);
    if constexpr (kPart == kParts - 1) {
      if (--rows_to_block_end_ == 0) {
        rows_to_block_end_ = rows_per_block_;
        for (int part = 0; part < kParts; ++part) carry_[part] = start_carry_;
      }
    }
  }
  /// Behind a piece of so many vectors.
  COVEY_INLINE void advance(int vectors) { sum_ += vectors * (V::kBytes / 8); }

 private:
  Type start_carry_;
  Type carry_[kParts];
  std::uint64_t* sum_;
  std::uint32_t rows_per_block_, rows_to_block_end_;
};

template <int Parts>
struct RowIndices;
template <>
struct RowIndices<1> {
  using Type = Indices<0>;
};
template <>
struct RowIndices<2> {
  using Type = Indices<0, 1>;
};
template <>
struct RowIndices<4> {
  using Type = Indices<0, 1, 2, 3>;
};

}  // namespace
}  // namespace covey::privacy::masking
