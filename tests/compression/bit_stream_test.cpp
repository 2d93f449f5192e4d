#include "bit_stream.hpp"

#include <string_view>

#include "compression_support.hpp"
#include "packing.hpp"
#include "rice_gaps.hpp"
#include "rounding.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

/// "1 010": spaces do not count; zeros up to the byte.
std::vector<std::byte> bits(std::string_view text) {
  std::vector<std::byte> bytes;
  unsigned used = 0;
  for (const char c : text) {
    if (c == ' ') continue;
    if (used++ % 8 == 0) bytes.push_back(std::byte{0});
    if (c == '1') bytes.back() |= static_cast<std::byte>(0x80 >> ((used - 1) % 8));
  }
  return bytes;
}

template <typename Write>
std::vector<std::byte> written(Write write) {
  std::vector<std::byte> bytes(4096);
  BitWriter writer(bytes.data());
  write(writer);
  bytes.resize(static_cast<std::size_t>(writer.finish() - bytes.data()));
  return bytes;
}

}  // namespace

TEST_CASE("Elias gamma codes are those of 1975") {
  // Elias 1975, table I: floor(log2 n) zeros, then n.
  CHECK(written([](BitWriter& w) {
          for (std::uint32_t n = 1; n <= 9; ++n) w.gamma(n);
        }) == bits("1 010 011 00100 00101 00110 00111 0001000 0001001"));
  CHECK(written([](BitWriter& w) { w.gamma(65535); }) == bits("000000000000000 1111111111111111"));
  CHECK(written([](BitWriter& w) { w.gamma(65536); }) ==
        bits("0000000000000000 10000000000000000"));
  CHECK(gamma_bits(1) == 1);
  CHECK(gamma_bits(9) == 7);
  CHECK(gamma_bits(UINT32_MAX) == 63);
}

TEST_CASE("Golomb-Rice codes are a quotient in zeros, a one and a remainder") {
  CHECK(written([](BitWriter& w) {
          w.rice(0, 2);
          w.rice(3, 2);
          w.rice(9, 2);
          w.rice(3, 0);
        }) == bits("1 00 1 11 001 01 0001"));
}

TEST_CASE("what is written in gamma and Rice codes is read again") {
  CAPTURE(kSeed);
  RandomStream random(kSeed, RandomPurpose::kFault);
  std::vector<std::uint32_t> values;
  for (int i = 0; i < 500; ++i) {
    values.push_back(static_cast<std::uint32_t>(random.next_u32() >> random.below(32)) | 1);
  }
  values.push_back(UINT32_MAX);
  std::vector<std::byte> bytes(1 << 16);
  BitWriter writer(bytes.data());
  for (const std::uint32_t value : values) {
    writer.gamma(value);
    writer.put(value & 1, 1);
    writer.rice(value % 1000, 3);
    writer.rice(value, 29);
  }
  bytes.resize(static_cast<std::size_t>(writer.finish() - bytes.data()));
  BitReader reader(bytes);
  bool same = true;
  for (const std::uint32_t value : values) {
    same = same && reader.gamma() == value && reader.take(1) == (value & 1) &&
           reader.rice(3, 1000) == value % 1000 && reader.rice(29, UINT32_MAX) == value;
  }
  CHECK(same);
  CHECK(reader.finished());
}

TEST_CASE("a reader behind its end says so, and never more than its bytes hold") {
  const auto bytes = bits("0000 0000 0000 0000");
  BitReader gamma(bytes);
  CHECK(gamma.gamma() == 0);
  BitReader rice(bytes);
  CHECK(rice.rice(0, 1000) > 1000);
  const auto one = bits("0001 0000");
  BitReader cut(one);
  CHECK(cut.gamma() == 8);
  CHECK_FALSE(cut.failed());
  CHECK(cut.finished());
  CHECK(cut.take(8) == 0);
  CHECK(cut.failed());
  BitReader more(bytes);
  CHECK_FALSE(more.finished());
}

TEST_CASE("codes of 1 to 8 bits are packed without gaps, the lowest bits first") {
  CAPTURE(kSeed);
  const std::uint8_t three[] = {1, 2, 3, 4, 5, 6, 7, 0};
  std::byte packed[3];
  pack_codes<3>(three, 8, packed);
  // 000 111 110 101 100 011 010 001, lowest last
  CHECK(std::to_integer<int>(packed[0]) == 0b11010001);
  CHECK(std::to_integer<int>(packed[1]) == 0b01011000);
  CHECK(std::to_integer<int>(packed[2]) == 0b00011111);
  RandomStream random(kSeed, RandomPurpose::kFault);
  for (const unsigned width : {1u, 2u, 3u, 4u, 8u}) {
    for (const std::size_t count : {0u, 1u, 7u, 8u, 9u, 64u, 77u}) {
      CAPTURE(width, count);
      std::vector<std::uint8_t> codes((count + 7) / 8 * 8), back(codes.size());
      for (std::size_t i = 0; i < count; ++i) {
        codes[i] = static_cast<std::uint8_t>(random.below(1u << width));
      }
      std::vector<std::byte> bytes((count * width + 7) / 8);
      with_bits(width, [&]<unsigned Bits>() {
        pack_codes<Bits>(codes.data(), count, bytes.data());
        unpack_codes<Bits>(bytes.data(), count, back.data());
      });
      CHECK(back == codes);
    }
  }
}

TEST_CASE("gaps are coded in about the entropy of their places") {
  CAPTURE(kSeed);
  constexpr std::size_t kSize = 200000, kCount = 2000;
  RandomStream random(kSeed, RandomPurpose::kFault);
  std::vector<std::uint32_t> positions;
  for (std::uint32_t i = 0; i < kSize; ++i) {
    if (random.below(kSize - i) < kCount - positions.size()) positions.push_back(i);
  }
  const RiceGaps gaps(kCount, kSize);
  const auto choice = gaps.choose(positions);
  // log2 of binomial(200000, 2000) over 2000: 8.08 bits a position
  const double share = static_cast<double>(kCount) / kSize;
  const double entropy = (-share * std::log2(share) - (1 - share) * std::log2(1 - share)) / share;
  const double spent = 8.0 * static_cast<double>(choice.bytes) / kCount;
  CHECK(spent > entropy - 0.05);
  CHECK(spent < entropy + 0.1);
  std::vector<std::byte> bytes(choice.bytes);
  RiceGaps::write(positions, choice, bytes.data());
  std::vector<std::uint32_t> back;
  REQUIRE(gaps.read(bytes, choice.parameter, back).ok());
  CHECK(back == positions);
}

TEST_CASE("no places take more bytes than the bound says") {
  const std::size_t size = GENERATE(10, 1000, 4097);
  const std::size_t count = GENERATE(1, 2, 5, 9);
  CAPTURE(size, count);
  const RiceGaps gaps(count, size);
  // all at the start, all at the end, spread, and in two heaps
  for (const int kind : {0, 1, 2, 3}) {
    std::vector<std::uint32_t> positions;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t place = kind == 0       ? i
                                : kind == 1     ? size - count + i
                                : kind == 2     ? i * size / count
                                : i < count / 2 ? i
                                                : size - count + i;
      positions.push_back(static_cast<std::uint32_t>(place));
    }
    const auto choice = gaps.choose(positions);
    CHECK(choice.bytes >= gaps.min_bytes());
    CHECK(choice.bytes <= gaps.max_bytes());
  }
}

TEST_CASE("rounding goes up with the chance of the fraction and leaves whole numbers alone") {
  for (const float whole : {-7.0f, -1.0f, 0.0f, 3.0f, 8388608.0f}) {
    for (const std::uint16_t random : {std::uint16_t{0}, std::uint16_t{65535}}) {
      CHECK(static_cast<float>(round_above(whole, random_threshold(random))) == whole);
    }
  }
  for (const float value : {-2.75f, -0.25f, 0.25f, 6.75f}) {
    CAPTURE(value);
    int up = 0;
    for (std::uint32_t random = 0; random < 65536; ++random) {
      const auto rounded = static_cast<float>(
          round_above(value, random_threshold(static_cast<std::uint16_t>(random))));
      REQUIRE((rounded == std::floor(value) || rounded == std::ceil(value)));
      up += rounded == std::ceil(value) ? 1 : 0;
    }
    CHECK(up == static_cast<int>((value - std::floor(value)) * 65536));
  }
  CHECK(round_above(2.5f, kHalf) == 2);
  CHECK(round_above(2.51f, kHalf) == 3);
  CHECK(round_above(-2.51f, kHalf) == -3);
}
