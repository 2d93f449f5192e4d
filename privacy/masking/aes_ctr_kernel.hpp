#pragma once

#include "masking/row_adder.hpp"

/// AES-128-CTR added to packed vectors, written once over vectors of 1, 2 or 4 AES blocks. Each
/// file that includes this is compiled for another instruction set: all is in an unnamed namespace
/// (a copy each), and no standard template is used.
///
/// The first two rounds are free. Within 256 consecutive counters only byte 15 of the input
/// changes, and below 2^40 blocks bytes 0, 5 and 10 are zero. ShiftRows brings just these four into
/// one column, so after round 1 that column depends on byte 15 alone and the others on the group of
/// 256 alone. Round 2 acts on single bytes and is linear behind that: its result is a table entry
/// of byte 15, the same for all groups, plus (xor) a vector of the group. (Counter-mode caching,
/// Bernstein and Schwabe 2008, section 3, taken one round further since the whole column, not a
/// byte, is looked up.) The table's index is the counter, so no address depends on a secret.
namespace covey::privacy::masking {
namespace {

/// V: a vector of AES blocks, see aes_ctr_*.cpp.
template <typename V>
class AesCtrAdder {
 public:
  using Type = typename V::Type;

  COVEY_INLINE AesCtrAdder(const KeystreamTask& task, KeystreamWorkspace& workspace)
      : adder_(task), table_(workspace.second_round[0]), row_(task.first_row) {
    V::expand_key(task.key, workspace.round_keys);
    for (int i = 0; i < 11; ++i) keys_[i] = V::broadcast_block(workspace.round_keys[i]);
    fill_table(task);
    first_entry_ = V::broadcast_block(workspace.second_round[0]);
    // The keystream's complement.
    if (task.subtract) keys_[10] = V::exclusive_or(keys_[10], V::broadcast_word(~0ull));
  }

  COVEY_INLINE void run(std::size_t rows) {
    enter_group();
    std::size_t left = rows;
    while (left > 0 && row_ % kStepRows != 0) {
      step(SingleRow{});
      --left;
    }
    for (; left >= kStepRows; left -= kStepRows) step(FullStep{});
    for (; left > 0; --left) step(SingleRow{});
  }

 private:
  static constexpr int kParts = RowAdder<V>::kParts;  ///< vectors in a row
  static constexpr int kStepRows = 8 / kParts;     ///< eight vectors fill the AES units' pipeline
  static constexpr std::uint64_t kGroupRows = 64;  ///< 256 counters
  using FullStep = Indices<0, 1, 2, 3, 4, 5, 6, 7>;
  using SingleRow = typename RowIndices<kParts>::Type;

  COVEY_INLINE Type two_rounds(Type counters) const {
    return V::round(V::round(V::start(counters, keys_), keys_, 1), keys_, 2);
  }

  /// The entries that the task's rows need (all, unless it is short) and the first.
  COVEY_INLINE void fill_table(const KeystreamTask& task) {
    const std::uint64_t rows = task.rows < kGroupRows ? task.rows : kGroupRows;
    fill_row(0);
    for (std::uint64_t i = 0; i < rows; ++i) fill_row((task.first_row + i) % kGroupRows);
  }
  COVEY_INLINE void fill_row(std::uint64_t row) {
    for (int part = 0; part < kParts; ++part) {
      const std::uint64_t block = 4 * row + static_cast<std::uint64_t>(part) * (V::kBytes / 16);
      // Byte 15, in the order of memory, is the top one of the second word.
      const Type counters = V::add(V::low_counters(), V::broadcast_block_of(0, block << 56));
      V::store(table_ + 16 * block, two_rounds(counters));
    }
  }

  /// What this group's columns 1 to 3 add to the table's entries, which have counter 0's.
  COVEY_INLINE void enter_group() {
    const std::uint64_t counter = row_ / kGroupRows * 256;
    group_ = V::exclusive_or(two_rounds(V::broadcast_block_of(0, __builtin_bswap64(counter))),
                             first_entry_);
  }

  template <int... I>
  COVEY_INLINE void step(Indices<I...>) {
    const std::uint8_t* entries = table_ + row_ % kGroupRows * 64;
    Type state[] = {V::exclusive_or(V::load(entries + I * V::kBytes), group_)...};
    ((state[I] = V::round(state[I], keys_, 3)), ...);
    ((state[I] = V::round(state[I], keys_, 4)), ...);
    ((state[I] = V::round(state[I], keys_, 5)), ...);
    ((state[I] = V::round(state[I], keys_, 6)), ...);
    ((state[I] = V::round(state[I], keys_, 7)), ...);
    ((state[I] = V::round(state[I], keys_, 8)), ...);
    ((state[I] = V::round(state[I], keys_, 9)), ...);
    ((state[I] = V::last_round(state[I], keys_)), ...);
    (adder_.template add<I>(state[I]), ...);
    adder_.advance(sizeof...(I));
    row_ += sizeof...(I) / kParts;
    if (row_ % kGroupRows == 0) enter_group();
  }

  Type keys_[11];
  Type first_entry_, group_;
  RowAdder<V> adder_;
  std::uint8_t* table_;
  std::uint64_t row_;
};

template <typename V>
void add_aes_ctr(const KeystreamTask& task, KeystreamWorkspace& workspace) {
  AesCtrAdder<V> adder(task, workspace);
  adder.run(task.rows);
}

}  // namespace
}  // namespace covey::privacy::masking
