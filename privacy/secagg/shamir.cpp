#include "secagg/shamir.hpp"

#include <algorithm>
#include <array>
#include <covey/assert.hpp>
#include <covey/int128.hpp>
#include <string>

namespace covey::privacy {
namespace {

constexpr unsigned kPrimeBits = 61;
constexpr std::uint64_t kPrime = (std::uint64_t{1} << kPrimeBits) - 1;  // a Mersenne prime

constexpr std::size_t kLimbs = 5;
constexpr unsigned kLimbBits = 52;
constexpr unsigned kLastLimbBits = 256 - 4 * kLimbBits;
static_assert(kShareBytes == kLimbs * sizeof(std::uint64_t));

// So many products of two elements, each below 2^122, can be added before 128 bits overflow.
constexpr std::size_t kLazyProducts = 64;

constexpr std::uint64_t kLargestPoint = std::uint64_t{1} << 31;

/// x < 2^62 (and at most 2 kPrime - 1) to its residue, without a branch.
std::uint64_t canonical(std::uint64_t x) {
  const std::uint64_t less = x - kPrime;
  const std::uint64_t borrowed = 0 - (less >> 63);  // all ones where x < kPrime
  return less + (kPrime & borrowed);
}

/// Any 128 bits to their residue: 2^61 = 1 modulo the prime, so the three parts are added.
std::uint64_t reduce(Uint128 x) {
  const auto low = static_cast<std::uint64_t>(x) & kPrime;
  const auto middle = static_cast<std::uint64_t>(x >> kPrimeBits) & kPrime;
  const auto high = static_cast<std::uint64_t>(x >> (2 * kPrimeBits));
  const std::uint64_t sum = low + middle + high;  // < 2^62 + 2^6
  return canonical((sum & kPrime) + (sum >> kPrimeBits));
}

std::uint64_t multiply(std::uint64_t a, std::uint64_t b) { return reduce(Uint128{a} * b); }

/// x^(kPrime - 2): the inverse of a public x != 0, by Fermat.
std::uint64_t inverse(std::uint64_t x) {
  std::uint64_t power = x;
  std::uint64_t result = 1;
  for (std::uint64_t exponent = kPrime - 2; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result = multiply(result, power);
    power = multiply(power, power);
  }
  return result;
}

std::uint64_t load(const std::uint8_t* bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 8; i-- > 0;) value = (value << 8) | bytes[i];
  return value;
}

void store(std::uint64_t value, std::uint8_t* bytes) {
  for (std::size_t i = 0; i < 8; ++i, value >>= 8) bytes[i] = static_cast<std::uint8_t>(value);
}

/// The 256 bits as numbers of 52, the first bits first.
std::array<std::uint64_t, kLimbs> limbs_of(const Secret<32>& secret) {
  std::array<std::uint64_t, kLimbs> limbs{};
  for (std::size_t limb = 0; limb < kLimbs; ++limb) {
    const std::size_t first_bit = limb * kLimbBits;
    // Limbs begin at bits 0, 52, 104, 156, 208: at byte first_bit / 8, bit 0 or 4 of it.
    const std::size_t byte = first_bit / 8;
    std::uint64_t value = 0;
    for (std::size_t i = std::min<std::size_t>(8, 32 - byte); i-- > 0;) {
      value = (value << 8) | secret.data()[byte + i];
    }
    limbs[limb] = (value >> (first_bit % 8)) & ((std::uint64_t{1} << kLimbBits) - 1);
  }
  return limbs;
}

Secret<32> secret_of(const std::array<std::uint64_t, kLimbs>& limbs) {
  Secret<32> secret;
  for (std::size_t limb = 0; limb < kLimbs; ++limb) {
    const std::size_t first_bit = limb * kLimbBits;
    const std::size_t byte = first_bit / 8;
    const std::uint64_t value = limbs[limb] << (first_bit % 8);  // 56 bits
    for (std::size_t i = 0; i < 7 && byte + i < 32; ++i) {
      secret.data()[byte + i] |= static_cast<std::uint8_t>(value >> (8 * i));
    }
  }
  return secret;
}

/// Polynomials of the limbs: coefficient j of limb l at [l * threshold + j]; j = 0 is the secret.
class Polynomials {
 public:
  static Result<Polynomials> draw(const Secret<32>& secret, std::size_t threshold,
                                  SecretSource& secrets) {
    Polynomials drawn(threshold);
    const std::size_t random = kLimbs * (threshold - 1);
    // 128 random bits to an element: each residue's probability is off from 1 / kPrime by a factor
    // of at most 1 +- 2^-67, so shares of two secrets differ, over the 5,000 coefficients of a
    // threshold of 1,000, by a statistical distance below 2^-54; no draw is ever rejected.
    std::vector<std::byte> bytes(random * 16);
    if (Result<void> filled = secrets.fill(bytes); !filled.ok()) return filled.error();
    const auto* next = reinterpret_cast<const std::uint8_t*>(bytes.data());
    std::array<std::uint64_t, kLimbs> limbs = limbs_of(secret);
    for (std::size_t limb = 0; limb < kLimbs; ++limb) {
      std::uint64_t* coefficients = drawn.coefficients_.data() + limb * threshold;
      coefficients[0] = limbs[limb];
      for (std::size_t j = 1; j < threshold; ++j, next += 16) {
        coefficients[j] = reduce((Uint128{load(next + 8)} << 64) | load(next));
      }
    }
    wipe(bytes);
    wipe(std::as_writable_bytes(std::span(limbs)));
    return drawn;
  }

  ~Polynomials() { wipe(std::as_writable_bytes(std::span(coefficients_))); }
  Polynomials(Polynomials&&) = default;
  Polynomials& operator=(Polynomials&&) = delete;

  ShareBytes at(std::uint32_t point) const {
    // Blocks of 64 coefficients, each the inner product with the first powers of the point, summed
    // before it is reduced; the blocks by Horner's rule. One reduction for 64 products.
    std::array<std::uint64_t, kLazyProducts> powers;
    powers[0] = 1;
    const std::size_t used = std::min(threshold_, kLazyProducts);
    for (std::size_t j = 1; j < used; ++j) powers[j] = multiply(powers[j - 1], point);
    const std::uint64_t step = multiply(powers[used - 1], point);  // unread for a single block
    ShareBytes share;
    for (std::size_t limb = 0; limb < kLimbs; ++limb) {
      const std::uint64_t* coefficients = coefficients_.data() + limb * threshold_;
      std::uint64_t value = 0;
      std::size_t end = threshold_;
      while (end > 0) {
        const std::size_t begin = (end - 1) / kLazyProducts * kLazyProducts;
        Uint128 block = 0;
        for (std::size_t j = begin; j < end; ++j)
          block += Uint128{coefficients[j]} * powers[j - begin];
        value = canonical(multiply(value, step) + reduce(block));
        end = begin;
      }
      store(value, share.data() + limb * sizeof value);
    }
    return share;
  }

 private:
  explicit Polynomials(std::size_t threshold)
      : threshold_(threshold), coefficients_(kLimbs * threshold) {}

  std::size_t threshold_;
  std::vector<std::uint64_t> coefficients_;
};

/// Product of (points[j] - points[i]) over j != i, of public points.
std::uint64_t product_of_differences(std::span<const std::uint32_t> points, std::size_t i) {
  // Differences are below 2^31: two are multiplied as they are before the product is reduced, in
  // four chains that do not wait for each other. Signs are counted.
  std::array<std::uint64_t, 4> chains{1, 1, 1, 1};
  std::size_t negative = 0;
  const auto difference = [&](std::size_t j) -> std::uint64_t {
    if (j == i) return 1;
    COVEY_ASSERT(points[j] != points[i]);
    negative += points[j] < points[i];
    return points[j] < points[i] ? points[i] - points[j] : points[j] - points[i];
  };
  std::size_t j = 0;
  for (; j + 8 <= points.size(); j += 8) {
    for (std::size_t chain = 0; chain < 4; ++chain) {
      const std::uint64_t pair = difference(j + 2 * chain) * difference(j + 2 * chain + 1);
      chains[chain] = multiply(chains[chain], pair);
    }
  }
  for (; j < points.size(); ++j) chains[0] = multiply(chains[0], difference(j));
  const std::uint64_t product =
      multiply(multiply(chains[0], chains[1]), multiply(chains[2], chains[3]));
  return negative % 2 == 0 ? product : canonical(kPrime - product);
}

}  // namespace

Result<std::vector<ShareBytes>> split(const Secret<32>& secret, std::uint32_t threshold,
                                      std::span<const std::uint32_t> points,
                                      SecretSource& secrets) {
  if (threshold < 1 || threshold > points.size()) {
    return invalid_argument("a secret cannot be shared among " + std::to_string(points.size()) +
                            " devices so that " + std::to_string(threshold) + " reconstruct it");
  }
  for (const std::uint32_t point : points) COVEY_ASSERT(point >= 1 && point <= kLargestPoint);
  COVEY_ASSIGN(const Polynomials polynomials, Polynomials::draw(secret, threshold, secrets));
  std::vector<ShareBytes> shares;
  shares.reserve(points.size());
  for (const std::uint32_t point : points) shares.push_back(polynomials.at(point));
  return shares;
}

Reconstruction::Reconstruction(std::span<const std::uint32_t> points)
    : coefficients_(points.size()) {
  COVEY_ASSERT(!points.empty());
  // The value at 0 of the polynomial that is 1 at points[i] and 0 at the others (Lagrange):
  // prod_j x_j / (x_i prod_j (x_j - x_i)), j != i below. One inversion serves all (Montgomery
  // 1987).
  std::vector<std::uint64_t> before(points.size());  // product of the denominators before this one
  std::uint64_t numerator = 1;
  std::uint64_t running = 1;
  for (std::size_t i = 0; i < points.size(); ++i) {
    COVEY_ASSERT(points[i] >= 1 && points[i] <= kLargestPoint);
    numerator = multiply(numerator, points[i]);
    coefficients_[i] = multiply(points[i], product_of_differences(points, i));
    before[i] = running;
    running = multiply(running, coefficients_[i]);
  }
  std::uint64_t inverted = multiply(numerator, inverse(running));
  for (std::size_t i = points.size(); i-- > 0;) {
    const std::uint64_t denominator = coefficients_[i];
    coefficients_[i] = multiply(inverted, before[i]);
    inverted = multiply(inverted, denominator);
  }
}

Result<Secret<32>> Reconstruction::combine(std::span<const ShareBytes* const> shares) const {
  COVEY_ASSERT(shares.size() == coefficients_.size());
  std::array<std::uint64_t, kLimbs> limbs{};
  std::uint64_t not_elements = 0;
  for (std::size_t begin = 0; begin < shares.size(); begin += kLazyProducts) {
    const std::size_t end = std::min(shares.size(), begin + kLazyProducts);
    std::array<Uint128, kLimbs> sums{};
    for (std::size_t i = begin; i < end; ++i) {
      for (std::size_t limb = 0; limb < kLimbs; ++limb) {
        const std::uint64_t value = load(shares[i]->data() + limb * sizeof(std::uint64_t));
        not_elements |= (value >> kPrimeBits) | ((value + 1) >> kPrimeBits);  // value >= kPrime
        sums[limb] += Uint128{coefficients_[i]} * (value & kPrime);
      }
    }
    for (std::size_t limb = 0; limb < kLimbs; ++limb) {
      limbs[limb] = canonical(limbs[limb] + reduce(sums[limb]));
    }
  }
  std::uint64_t too_large = limbs[kLimbs - 1] >> kLastLimbBits;
  for (std::size_t limb = 0; limb + 1 < kLimbs; ++limb) too_large |= limbs[limb] >> kLimbBits;
  Secret<32> secret = secret_of(limbs);
  wipe(std::as_writable_bytes(std::span(limbs)));
  if (not_elements != 0) return malformed("a share of a secret is no element of the field");
  if (too_large != 0) return malformed("shares that do not belong together make no secret");
  return secret;
}

}  // namespace covey::privacy
