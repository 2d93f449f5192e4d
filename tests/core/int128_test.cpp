// The portable integers of 128 bits against values by hand and, where there are any, the
// compiler's.

#include <array>
#include <catch2/catch.hpp>
#include <covey/int128.hpp>
#include <covey/random.hpp>
#include <limits>

using namespace covey;

namespace {

constexpr PortableUint128 kTop = PortableUint128{1} << 127;

}  // namespace

TEST_CASE("sums, differences and products of 128 bits carry from word to word") {
  const PortableUint128 word = std::numeric_limits<std::uint64_t>::max();
  CHECK(word + 1 == PortableUint128{1} << 64);
  CHECK((PortableUint128{1} << 64) - 1 == word);
  CHECK(word * word == (PortableUint128{1} << 127) - (PortableUint128{1} << 65) + kTop + 1);
  CHECK(kTop + kTop == 0);
  CHECK(PortableUint128{0} - 1 == PortableUint128{-1});
}

TEST_CASE("a quotient of 128 bits times its divisor, with the remainder, is the dividend") {
  const PortableUint128 dividend = (PortableUint128{0x0123456789abcdef} << 64) | 0xfedcba9876543210;
  for (const PortableUint128 divisor :
       {PortableUint128{1}, PortableUint128{10}, PortableUint128{0xffffffffffff},
        PortableUint128{7} << 70, dividend, dividend + 1}) {
    CHECK((dividend / divisor) * divisor + dividend % divisor == dividend);
    CHECK(dividend % divisor < divisor);
  }
}

TEST_CASE("128 bits become the nearest double, and of two as near the even one") {
  const PortableUint128 one = 1;
  CHECK(static_cast<double>((one << 100) + (one << 47)) == 0x1p100);
  CHECK(static_cast<double>((one << 100) + (one << 47) + 1) == 0x1p100 + 0x1p48);
  CHECK(static_cast<double>((one << 100) + (PortableUint128{3} << 47)) == 0x1p100 + 0x1p49);
  CHECK(static_cast<double>(PortableUint128{-1}) == 0x1p128);
  CHECK(static_cast<double>(PortableInt128{-5}) == -5.0);
  CHECK(static_cast<double>(PortableInt128(kTop)) == -0x1p127);
  CHECK(PortableUint128(0x1.8p100) == PortableUint128{3} << 99);
  CHECK(PortableInt128(-0x1.8p100) == -(PortableInt128{3} << 99));
  CHECK(PortableInt128(-2.75) == PortableInt128{-2});
}

TEST_CASE("signed integers of 128 bits are ordered through zero") {
  CHECK(PortableInt128{-1} < PortableInt128{0});
  CHECK(PortableInt128(kTop) < PortableInt128{-1});
  CHECK(PortableInt128{3} > PortableInt128{-4});
  CHECK(static_cast<std::int64_t>(PortableInt128{-7} * 6) == -42);
}

#ifdef __SIZEOF_INT128__
TEST_CASE("the portable integers of 128 bits agree with the compiler's") {
  constexpr std::uint64_t kSeed = 128;
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kPartition);
  const auto portable = [](Uint128 value) {
    return (PortableUint128{static_cast<std::uint64_t>(value >> 64)} << 64) |
           static_cast<std::uint64_t>(value);
  };
  for (int i = 0; i < 2000; ++i) {
    const auto draw = [&] {
      const Uint128 words = (static_cast<Uint128>(random.next_u64()) << 64) | random.next_u64();
      return words >> random.below(128);  // of every width
    };
    const Uint128 a = draw(), b = draw() + 1;
    const auto count = static_cast<int>(random.below(128));
    CHECK(portable(a) + portable(b) == portable(a + b));
    CHECK(portable(a) - portable(b) == portable(a - b));
    CHECK(portable(a) * portable(b) == portable(a * b));
    CHECK(portable(a) / portable(b) == portable(a / b));
    CHECK(portable(a) % portable(b) == portable(a % b));
    CHECK((portable(a) | portable(b)) == portable(a | b));
    CHECK((portable(a) & portable(b)) == portable(a & b));
    CHECK(portable(a) << count == portable(a << count));
    CHECK(portable(a) >> count == portable(a >> count));
    CHECK((portable(a) < portable(b)) == (a < b));
    CHECK(static_cast<double>(portable(a)) == static_cast<double>(a));
    const PortableInt128 signed_a(portable(a)), signed_b(portable(b));
    CHECK((signed_a < signed_b) == (static_cast<Int128>(a) < static_cast<Int128>(b)));
    CHECK(static_cast<double>(signed_a) == static_cast<double>(static_cast<Int128>(a)));
    const auto scaled = static_cast<double>(a) * 0x1p-1;
    CHECK(PortableUint128(scaled) == portable(static_cast<Uint128>(scaled)));
  }
}
#endif
