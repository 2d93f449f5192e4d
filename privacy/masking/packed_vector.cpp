#include <algorithm>
#include <array>
#include <bit>
#include <covey/assert.hpp>
#include <covey/privacy/packed_vector.hpp>

#include "masking/lanes.hpp"

namespace covey::privacy {

namespace {

static_assert(std::endian::native == std::endian::little, "packed vectors are little-endian");

void check(const PackedFormat& format) {
  COVEY_ASSERT(format.sum_bits >= PackedFormat::kMinSumBits &&
               format.sum_bits <= PackedFormat::kMaxSumBits);
  COVEY_ASSERT(format.coordinates >= 1);
}

/// A last block that is not full, filled up with zeros.
using Block = std::array<std::int64_t, PackedFormat::kBlockCoordinates>;

}  // namespace

void pack(const PackedFormat& format, std::span<const std::int64_t> values,
          std::span<std::uint64_t> words) {
  check(format);
  COVEY_ASSERT(values.size() == format.coordinates && words.size() == format.words());
  const auto& lanes = masking::selected_lanes();
  const std::size_t whole = format.coordinates / PackedFormat::kBlockCoordinates;
  lanes.pack(format.sum_bits, whole, values.data(), words.data());
  if (whole == format.blocks()) return;
  Block last{};
  std::ranges::copy(values.subspan(whole * PackedFormat::kBlockCoordinates), last.begin());
  lanes.pack(format.sum_bits, 1, last.data(), words.data() + whole * format.block_words());
}

void unpack(const PackedFormat& format, std::span<const std::uint64_t> words,
            std::span<std::int64_t> values) {
  check(format);
  COVEY_ASSERT(values.size() == format.coordinates && words.size() == format.words());
  const auto& lanes = masking::selected_lanes();
  const std::size_t whole = format.coordinates / PackedFormat::kBlockCoordinates;
  lanes.unpack(format.sum_bits, whole, words.data(), values.data());
  if (whole == format.blocks()) return;
  Block last{};
  lanes.unpack(format.sum_bits, 1, words.data() + whole * format.block_words(), last.data());
  const auto rest = values.subspan(whole * PackedFormat::kBlockCoordinates);
  std::copy_n(last.begin(), rest.size(), rest.begin());
}

void add_packed(const PackedFormat& format, std::span<const std::byte> packed,
                std::span<std::uint64_t> sum) {
  check(format);
  COVEY_ASSERT(packed.size() == format.bytes() && sum.size() == format.words());
  masking::selected_lanes().add(format.sum_bits, format.blocks(), packed.data(), sum.data());
}

}  // namespace covey::privacy
