#include "secagg/shamir.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <numeric>
#include <vector>

namespace covey::privacy {
namespace {

constexpr std::uint64_t kPrime = (std::uint64_t{1} << 61) - 1;
constexpr std::uint64_t kSeed = 20170;

Secret<32> secret_from(SecretSource& source) {
  Secret<32> secret;
  REQUIRE(source.fill(secret.span()).ok());
  return secret;
}

std::vector<std::uint32_t> points_to(std::uint32_t count) {
  std::vector<std::uint32_t> points(count);
  std::iota(points.begin(), points.end(), 1u);
  return points;
}

/// Reconstructs from the shares at these indices.
Result<Secret<32>> combined(const std::vector<ShareBytes>& shares,
                            const std::vector<std::uint32_t>& points,
                            const std::vector<std::size_t>& chosen) {
  std::vector<std::uint32_t> at;
  std::vector<const ShareBytes*> of;
  for (const std::size_t i : chosen) {
    at.push_back(points[i]);
    of.push_back(&shares[i]);
  }
  return Reconstruction(at).combine(of);
}

std::uint64_t element(const ShareBytes& share, std::size_t limb) {
  std::uint64_t value = 0;
  for (std::size_t i = 8; i-- > 0;) value = (value << 8) | share.data()[limb * 8 + i];
  return value;
}

TEST_CASE("any threshold of the shares give the secret, in any order") {
  INFO("seed " << kSeed);
  const auto source = seeded_secrets(kSeed, {}, {});
  for (std::uint32_t threshold = 1; threshold <= 6; ++threshold) {
    const auto points = points_to(6);
    const Secret<32> secret = secret_from(*source);
    const auto shares = split(secret, threshold, points, *source);
    REQUIRE(shares.ok());
    for (unsigned subset = 1; subset < 64; ++subset) {
      std::vector<std::size_t> chosen;
      for (std::size_t i = 6; i-- > 0;) {  // descending: the order of points does not matter
        if (subset >> i & 1) chosen.push_back(i);
      }
      const auto result = combined(*shares, points, chosen);
      if (chosen.size() >= threshold) {
        REQUIRE(result.ok());
        CHECK(*result == secret);
      } else {
        CHECK((!result.ok() || !(*result == secret)));
      }
    }
  }
}

TEST_CASE("secrets of every bit pattern survive, at the largest points and thresholds") {
  INFO("seed " << kSeed);
  const auto source = seeded_secrets(kSeed, {}, ClientId{1});
  for (const std::uint32_t threshold : {2u, 63u, 64u, 65u, 129u, 301u}) {
    // The largest points there are, and the smallest.
    std::vector<std::uint32_t> points = points_to(threshold / 2);
    while (points.size() < threshold + 3) {
      points.push_back((1u << 31) - static_cast<std::uint32_t>(points.size() * points.size()));
    }
    points.back() = 1u << 31;
    std::vector<std::size_t> last(threshold);
    std::iota(last.begin(), last.end(), points.size() - threshold);
    for (const int pattern : {0x00, 0xff, 0x80, 0x01, 0x55}) {
      std::array<std::uint8_t, 32> bytes{};
      bytes.fill(static_cast<std::uint8_t>(pattern));
      const Secret<32> secret(bytes);
      const auto shares = split(secret, threshold, points, *source);
      REQUIRE(shares.ok());
      const auto result = combined(*shares, points, last);
      REQUIRE(result.ok());
      CHECK(*result == secret);
    }
  }
}

TEST_CASE("a share is the polynomial's value modulo 2^61 - 1") {
  // A source of ones only: every coefficient is 2^128 - 1 = 2^6 - 1 modulo 2^61 - 1, so with t = 3
  // a limb's share at x is limb + 63 x + 63 x^2.
  class Ones final : public SecretSource {
    Result<void> fill(std::span<std::byte> bytes) override {
      std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
      return {};
    }
  } ones;
  Secret<32> secret;
  secret.data()[0] = 5;
  secret.data()[31] = 0x80;  // bit 255: bit 47 of the last limb
  const std::array<std::uint32_t, 3> points{1, 2, 1u << 31};
  const auto shares = split(secret, 3, points, ones);
  REQUIRE(shares.ok());
  CHECK(element((*shares)[0], 0) == 5 + 63 + 63);
  CHECK(element((*shares)[1], 0) == 5 + 63 * 2 + 63 * 4);
  CHECK(element((*shares)[1], 1) == 63 * 2 + 63 * 4);
  CHECK(element((*shares)[1], 4) == (std::uint64_t{1} << 47) + 63 * 2 + 63 * 4);
  // x = 2^31: x^2 = 2^62 = 2 modulo the prime.
  CHECK(element((*shares)[2], 0) == 5 + 63 * (std::uint64_t{1} << 31) + 63 * 2);
}

TEST_CASE("the same source gives the same shares, another one others") {
  const auto points = points_to(5);
  const Secret<32> secret = secret_from(*seeded_secrets(1, {}, {}));
  const auto once = split(secret, 3, points, *seeded_secrets(2, {}, {}));
  const auto again = split(secret, 3, points, *seeded_secrets(2, {}, {}));
  const auto other = split(secret, 3, points, *seeded_secrets(3, {}, {}));
  REQUIRE((once.ok() && again.ok() && other.ok()));
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK((*once)[i] == (*again)[i]);
    CHECK_FALSE((*once)[i] == (*other)[i]);
  }
}

TEST_CASE("shares below the threshold say nothing: those of two secrets are distributed alike") {
  INFO("seed " << kSeed);
  const auto source = seeded_secrets(kSeed, {}, ClientId{2});
  // t = 3 of 3, two shares seen. Each pair of shares falls into one of 16 x 16 cells by their first
  // limbs' top four bits. Chi-square against the uniform distribution for either secret: 255
  // degrees of freedom, mean 255, standard deviation sqrt(510) = 22.6; 368 is five of them.
  constexpr int kDraws = 16000;
  const auto points = points_to(3);
  std::array<std::uint8_t, 32> ones{};
  ones.fill(0xff);
  for (const Secret<32>& secret : {Secret<32>(), Secret<32>(ones)}) {
    for (const std::size_t limb : {std::size_t{0}, std::size_t{4}}) {
      std::array<int, 256> cells{};
      for (int i = 0; i < kDraws; ++i) {
        const auto shares = split(secret, 3, points, *source);
        REQUIRE(shares.ok());
        const auto high = [&](std::size_t share) { return element((*shares)[share], limb) >> 57; };
        ++cells[high(0) * 16 + high(1)];
      }
      double chi_square = 0;
      constexpr double kExpected = kDraws / 256.0;
      for (const int count : cells) {
        chi_square += (count - kExpected) * (count - kExpected) / kExpected;
      }
      CHECK(chi_square < 368);
      CHECK(chi_square > 150);  // nor more even than chance
    }
  }
}

TEST_CASE("every bit of a share is as often one as zero") {
  INFO("seed " << kSeed);
  const auto source = seeded_secrets(kSeed, {}, ClientId{3});
  constexpr int kDraws = 4000;
  const auto points = points_to(2);
  std::array<std::array<int, 61>, 5> ones{};
  for (int i = 0; i < kDraws; ++i) {
    const auto shares = split(Secret<32>(), 2, points, *source);
    REQUIRE(shares.ok());
    for (std::size_t limb = 0; limb < 5; ++limb) {
      const std::uint64_t value = element((*shares)[1], limb);
      REQUIRE(value < kPrime);
      for (std::size_t bit = 0; bit < 61; ++bit) {
        ones[limb][bit] += static_cast<int>(value >> bit & 1);
      }
    }
  }
  // Standard deviation sqrt(4000) / 2 = 31.6; 305 counts, so five of them is a chance of 2e-4.
  for (const auto& limb : ones) {
    for (const int count : limb) CHECK(std::abs(count - kDraws / 2) < 158);
  }
}

TEST_CASE("bytes that are no element of the field are refused") {
  const auto source = seeded_secrets(kSeed, {}, ClientId{4});
  const auto points = points_to(3);
  const auto shares = split(secret_from(*source), 2, points, *source);
  REQUIRE(shares.ok());
  for (const std::uint64_t value :
       {kPrime, kPrime + 1, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    for (std::size_t limb = 0; limb < 5; ++limb) {
      std::vector<ShareBytes> bad = *shares;
      for (std::size_t i = 0; i < 8; ++i) {
        bad[1].data()[limb * 8 + i] = static_cast<std::uint8_t>(value >> (8 * i));
      }
      const auto result = combined(bad, points, {0, 1});
      REQUIRE_FALSE(result.ok());
      CHECK(result.error().code == ErrorCode::kMalformed);
      CHECK(result.error().message == "a share of a secret is no element of the field");
    }
  }
}

TEST_CASE("a wrong share never gives the secret") {
  INFO("seed " << kSeed);
  const auto source = seeded_secrets(kSeed, {}, ClientId{5});
  const auto points = points_to(4);
  const Secret<32> secret = secret_from(*source);
  const auto shares = split(secret, 3, points, *source);
  REQUIRE(shares.ok());
  for (std::size_t byte = 0; byte < kShareBytes; ++byte) {
    std::vector<ShareBytes> bad = *shares;
    bad[2].data()[byte] ^= 1;
    const auto result = combined(bad, points, {0, 2, 3});
    CHECK((!result.ok() || !(*result == secret)));
  }
  // The share of another secret: each limb comes out uniform, and all five fit into their 52 or 48
  // bits with probability 2^-49.
  const auto others = split(secret_from(*source), 3, points, *source);
  REQUIRE(others.ok());
  std::vector<ShareBytes> mixed = *shares;
  mixed[1] = (*others)[1];
  const auto result = combined(mixed, points, {0, 1, 2});
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().message == "shares that do not belong together make no secret");
}

TEST_CASE("impossible thresholds and a failing source are errors") {
  const auto source = seeded_secrets(kSeed, {}, ClientId{6});
  const auto points = points_to(3);
  CHECK_FALSE(split(Secret<32>(), 0, points, *source).ok());
  const auto too_many = split(Secret<32>(), 4, points, *source);
  REQUIRE_FALSE(too_many.ok());
  CHECK(too_many.error().message ==
        "a secret cannot be shared among 3 devices so that 4 reconstruct it");
  class Broken final : public SecretSource {
    Result<void> fill(std::span<std::byte>) override { return failed("no entropy"); }
  } broken;
  const auto result = split(Secret<32>(), 2, points, broken);
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().message == "no entropy");
}

}  // namespace
}  // namespace covey::privacy
