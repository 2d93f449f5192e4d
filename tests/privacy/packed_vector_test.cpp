#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/random.hpp>
#include <cstring>
#include <vector>

#include "masking/instruction_set.hpp"
#include "masking/lanes.hpp"

using namespace covey;
using namespace covey::privacy;

namespace {

using Words = std::vector<std::uint64_t>;
using Values = std::vector<std::int64_t>;

constexpr std::uint64_t kSeed = 11;

/// The header's definition, word by word: lane += x * 2^(j m), modulo 2^(64 m).
void add_at(Words& words, const PackedFormat& format, std::size_t coordinate, std::int64_t x) {
  const std::size_t block = coordinate / 512, j = coordinate % 512 / 8, lane = coordinate % 8;
  const std::size_t bit = j * format.sum_bits;
  std::uint64_t extended[3];  // x * 2^(bit % 64), sign-extended
  const std::size_t shift = bit % 64;
  const auto low = static_cast<std::uint64_t>(x);
  const std::uint64_t sign = x < 0 ? ~0ull : 0;
  extended[0] = low << shift;
  extended[1] = shift == 0 ? sign : (low >> (64 - shift)) | (sign << shift);
  extended[2] = sign;
  unsigned __int128 carry = 0;
  for (std::size_t row = bit / 64, i = 0; row < format.sum_bits; ++row, ++i) {
    std::uint64_t& word = words[block * format.block_words() + row * 8 + lane];
    carry += word;
    carry += extended[std::min<std::size_t>(i, 2)];
    word = static_cast<std::uint64_t>(carry);
    carry >>= 64;
  }
}

Words packed_by_definition(const PackedFormat& format, const Values& values) {
  Words words(format.words());
  for (std::size_t i = 0; i < values.size(); ++i) add_at(words, format, i, values[i]);
  return words;
}

Values random_values(RandomStream& random, std::size_t count, std::int64_t low, std::int64_t high) {
  Values values(count);
  const auto width = static_cast<std::uint64_t>(high - low) + 1;
  for (auto& value : values) value = low + static_cast<std::int64_t>(random.below(width));
  return values;
}

PackedFormat random_format(RandomStream& random) {
  PackedFormat format;
  format.sum_bits = static_cast<std::uint32_t>(2 + random.below(55));
  format.coordinates = 1 + random.below(2000);
  return format;
}

Words packed(const PackedFormat& format, const Values& values) {
  Words words(format.words(), 0xdeadbeefdeadbeef);
  pack(format, values, words);
  return words;
}

void add(const PackedFormat& format, const Words& words, Words& sum) {
  add_packed(format, std::as_bytes(std::span(words)), sum);
}

std::vector<const masking::LaneKernels*> available_lanes() {
  const auto set = masking::processor_instruction_set();
  std::vector<const masking::LaneKernels*> lanes{masking::lanes_baseline()};
  if (set.avx2 && masking::lanes_avx2() != nullptr) lanes.push_back(masking::lanes_avx2());
  if (set.avx512 && masking::lanes_avx512() != nullptr) lanes.push_back(masking::lanes_avx512());
  return lanes;
}

}  // namespace

TEST_CASE("a packed vector has 64 m bytes for every 512 coordinates") {
  const PackedFormat format{20, 513};
  REQUIRE(format.blocks() == 2);
  REQUIRE(format.bytes() == 2 * 64 * 20);
}

TEST_CASE("unpacking gives back what was packed, at every width") {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{1});
  INFO("seed " << kSeed);
  for (std::uint32_t m = PackedFormat::kMinSumBits; m <= PackedFormat::kMaxSumBits; ++m) {
    for (const std::size_t coordinates : {1u, 7u, 8u, 511u, 512u, 513u, 2000u}) {
      const PackedFormat format{m, coordinates};
      auto values = random_values(random, coordinates, 0, (std::int64_t{1} << m) - 1);
      values.front() = (std::int64_t{1} << m) - 1;
      values.back() = 0;
      Values back(coordinates, -1);
      unpack(format, packed(format, values), back);
      REQUIRE(back == values);
    }
  }
}

TEST_CASE("packing is the linear map that the layout defines, also for negative values") {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{2});
  INFO("seed " << kSeed);
  constexpr std::int64_t kMost = (std::int64_t{1} << 62) - 1;
  for (int trial = 0; trial < 60; ++trial) {
    const PackedFormat format = random_format(random);
    const std::int64_t bound = trial % 3 == 0 ? kMost : std::int64_t{1} << (trial % 30);
    const auto values = random_values(random, format.coordinates, -bound, bound);
    CAPTURE(format.sum_bits, format.coordinates, bound);
    REQUIRE(packed(format, values) == packed_by_definition(format, values));
  }
}

TEST_CASE("the sum of packed vectors is the packed sum, negatives included") {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{3});
  INFO("seed " << kSeed);
  for (int trial = 0; trial < 60; ++trial) {
    const PackedFormat format = random_format(random);
    const std::int64_t bound = std::int64_t{1} << (format.sum_bits - 2);
    Words sum(format.words());
    Values plain(format.coordinates);
    for (int device = 0; device < 5; ++device) {
      const auto values = random_values(random, format.coordinates, -bound, bound);
      for (std::size_t i = 0; i < plain.size(); ++i) plain[i] += values[i];
      add(format, packed(format, values), sum);
    }
    REQUIRE(sum == packed(format, plain));
    // Brought into [0, 2^m), it can be read.
    Values lift(format.coordinates), lifted(format.coordinates);
    for (std::size_t i = 0; i < plain.size(); ++i) {
      const std::int64_t wanted = static_cast<std::int64_t>(random.below(1ull << format.sum_bits));
      lift[i] = wanted - plain[i];
      plain[i] = wanted;
    }
    add(format, packed(format, lift), sum);
    unpack(format, sum, lifted);
    REQUIRE(lifted == plain);
  }
}

TEST_CASE("adding is addition of long integers, in every instruction set and at any alignment") {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{4});
  INFO("seed " << kSeed);
  for (int trial = 0; trial < 40; ++trial) {
    const PackedFormat format = random_format(random);
    const std::uint32_t m = format.sum_bits;
    Words sum(format.words()), other(format.words());
    for (auto& word : sum) word = random.next_u64();
    // All ones in a third of the words: carries must run through them.
    for (auto& word : other) word = random.below(3) == 0 ? ~0ull : random.next_u64();
    for (std::size_t i = 0; i < sum.size(); ++i) {
      if (random.below(3) == 0) sum[i] = ~other[i];
    }
    Words more = sum, less = sum;
    for (std::size_t block = 0; block < format.blocks(); ++block) {
      for (std::size_t lane = 0; lane < 8; ++lane) {
        unsigned __int128 carry = 0;
        std::uint64_t borrow = 0;
        for (std::size_t row = 0; row < m; ++row) {
          const std::size_t i = block * format.block_words() + row * 8 + lane;
          carry = (carry >> 64) + sum[i] + other[i];
          more[i] = static_cast<std::uint64_t>(carry);
          less[i] = sum[i] - other[i] - borrow;
          borrow = sum[i] < other[i] || (sum[i] == other[i] && borrow != 0) ? 1 : 0;
        }
      }
    }
    std::vector<std::byte> shifted(format.bytes() + 8);
    const std::size_t offset = 1 + random.below(7);
    std::memcpy(shifted.data() + offset, other.data(), format.bytes());
    const std::span<const std::byte> bytes(shifted.data() + offset, format.bytes());
    CAPTURE(m, format.coordinates, offset);
    for (const auto* lanes : available_lanes()) {
      Words added = sum, subtracted = sum;
      lanes->add(m, format.blocks(), bytes.data(), added.data());
      lanes->subtract(m, format.blocks(), bytes.data(), subtracted.data());
      REQUIRE(added == more);
      REQUIRE(subtracted == less);
    }
    add_packed(format, bytes, sum);
    REQUIRE(sum == more);
  }
}

TEST_CASE("every instruction set packs and unpacks the same") {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{5});
  INFO("seed " << kSeed);
  const auto all = available_lanes();
  for (std::uint32_t m = 2; m <= 56; ++m) {
    const auto values =
        random_values(random, 1024, -(std::int64_t{1} << 40), std::int64_t{1} << 40);
    Words expected(2 * 8 * m);
    all.front()->pack(m, 2, values.data(), expected.data());
    Values unpacked(1024);
    all.front()->unpack(m, 2, expected.data(), unpacked.data());
    for (const auto* lanes : all) {
      Words words(expected.size());
      Values back(1024);
      lanes->pack(m, 2, values.data(), words.data());
      lanes->unpack(m, 2, words.data(), back.data());
      REQUIRE(words == expected);
      REQUIRE(back == unpacked);
    }
  }
}
