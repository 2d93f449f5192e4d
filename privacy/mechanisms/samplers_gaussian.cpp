#include "mechanisms/samplers_gaussian.hpp"

#include <bit>
#include <cmath>
#include <covey/assert.hpp>

namespace covey::privacy {
namespace {

/// A geometric variable reaches this with probability e^-1048576: it never does.
constexpr std::uint64_t kMaxGeometric = std::uint64_t{1} << 20;

// Long division: the quotient's digits from the highest on; `numerator` becomes the remainder.
Uint256 divide(Uint256& numerator, const Uint256& denominator) {
  Uint256 quotient;
  Uint256 remainder;
  for (int i = 255; i >= 0; --i) {
    remainder.shift_in(numerator.bit(i));
    const bool digit = remainder.at_least(denominator);
    if (digit) remainder.subtract(denominator);
    quotient.shift_in(digit);
  }
  numerator = remainder;
  return quotient;
}

// The next binary digit of a fraction in [0, 1), which becomes what is behind it.
bool next_digit(Fraction& fraction) {
  fraction.numerator.shift_in(false);
  if (!fraction.numerator.at_least(fraction.denominator)) return false;
  fraction.numerator.subtract(fraction.denominator);
  return true;
}

// Bernoulli(e^-f) for f in [0, 1), with low <= floor(f 2^64) <= high: the first k whose Bernoulli(f
// / k) fails is odd (Algorithm 1). floor(floor(y) / k) = floor(y / k), so the bounds divide. `rest`
// makes f as a fraction.
template <typename Rest>
bool bernoulli_exp(std::uint64_t low, std::uint64_t high, SecretBits& bits, const Rest& rest) {
  for (std::uint64_t k = 1;; ++k) {
    const std::uint64_t first = bits.word();
    if (first > (k == 1 ? high : high / k)) return k % 2 == 1;
    if (first < (k == 1 ? low : low / k)) continue;
    Fraction fraction = rest();
    fraction.denominator = fraction.denominator.times(k);
    if (!exactly_below(first, fraction, bits)) return k % 2 == 1;
  }
}

// floor(2^64 / k): what e^-1's series is decided against.
constexpr auto kInverses = [] {
  std::array<std::uint64_t, 24> inverses{};
  for (std::size_t k = 2; k < inverses.size(); ++k) {
    inverses[k] = static_cast<std::uint64_t>((Uint128{1} << 64) / k);
  }
  return inverses;
}();

// Bernoulli(e^-1), likewise: Bernoulli(1 / 1) never fails.
bool bernoulli_exp_one(SecretBits& bits) {
  for (std::uint64_t k = 2;; ++k) {
    const std::uint64_t first = bits.word();
    const std::uint64_t threshold = k < kInverses.size()
                                        ? kInverses[static_cast<std::size_t>(k)]
                                        : static_cast<std::uint64_t>((Uint128{1} << 64) / k);
    if (first < threshold) continue;
    if (first == threshold && exactly_below(first, {Uint256::of(1), Uint256::of(k)}, bits))
      continue;
    return k % 2 == 1;
  }
}

}  // namespace

Uint256 Uint256::of(Half value) {
  return {{static_cast<std::uint64_t>(value), static_cast<std::uint64_t>(value >> 64), 0, 0}};
}

Uint256 Uint256::times(std::uint64_t factor) const {
  Uint256 product;
  Half carry = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    carry += static_cast<Half>(words[i]) * factor;
    product.words[i] = static_cast<std::uint64_t>(carry);
    carry >>= 64;
  }
  COVEY_ASSERT(carry == 0);
  return product;
}

Uint256 Uint256::square(Half value) {
  const Uint256 wide = of(value);
  const Uint256 low = wide.times(wide.words[0]);
  Uint256 high = wide.times(wide.words[1]);
  Uint256 sum = low;
  Half carry = 0;
  for (std::size_t i = 1; i < 4; ++i) {
    carry += static_cast<Half>(low.words[i]) + high.words[i - 1];
    sum.words[i] = static_cast<std::uint64_t>(carry);
    carry >>= 64;
  }
  return sum;
}

int Uint256::bit_width() const {
  for (int i = 3; i >= 0; --i) {
    const std::uint64_t word = words[static_cast<std::size_t>(i)];
    if (word != 0) return 64 * i + static_cast<int>(std::bit_width(word));
  }
  return 0;
}

bool Uint256::at_least(const Uint256& other) const {
  for (std::size_t i = 4; i-- > 0;) {
    if (words[i] != other.words[i]) return words[i] > other.words[i];
  }
  return true;
}

void Uint256::subtract(const Uint256& other) {
  std::uint64_t borrow = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const Half difference = static_cast<Half>(words[i]) - other.words[i] - borrow;
    words[i] = static_cast<std::uint64_t>(difference);
    borrow = static_cast<std::uint64_t>(difference >> 64) & 1;
  }
}

void Uint256::shift_in(bool low_bit) {
  std::uint64_t carry = low_bit ? 1 : 0;
  for (auto& word : words) {
    const std::uint64_t out = word >> 63;
    word = (word << 1) | carry;
    carry = out;
  }
}

std::uint64_t Uint256::top(int& shift) const {
  const int width = bit_width();
  shift = width - 64;
  std::uint64_t bits = 0;
  for (int i = width - 1; i >= shift; --i) bits = (bits << 1) | (i >= 0 && bit(i) ? 1 : 0);
  return bits;
}

bool exactly_below(std::uint64_t first, Fraction fraction, SecretBits& bits) {
  for (int i = 63; i >= 0; --i) {
    const bool drawn = ((first >> i) & 1) != 0;
    if (const bool digit = next_digit(fraction); digit != drawn) return digit;
  }
  for (;;) {
    const bool drawn = bits.bit();
    if (const bool digit = next_digit(fraction); digit != drawn) return digit;
  }
}

std::int64_t DiscreteLaplace::draw(SecretBits& bits) const {
  for (;;) {
    std::uint64_t within = 0;
    if (scale_ > 1) {
      within = bits.below(scale_);
      const auto floor = static_cast<std::uint64_t>((static_cast<Uint128>(within) << 64) / scale_);
      const auto fraction = [&] { return Fraction{Uint256::of(within), Uint256::of(scale_)}; };
      if (!bernoulli_exp(floor, floor, bits, fraction)) continue;
    }
    std::uint64_t whole = 0;
    while (whole < kMaxGeometric && bernoulli_exp_one(bits)) ++whole;
    const auto magnitude = static_cast<std::int64_t>(within + scale_ * whole);
    const bool negative = bits.bit();
    if (negative && magnitude == 0) continue;
    return negative ? -magnitude : magnitude;
  }
}

DiscreteGaussian::DiscreteGaussian(double sigma, bool always_exact)
    : variance_(0), laplace_(1), always_exact_(always_exact) {
  const double scaled = std::nearbyint(std::ldexp(sigma, 10) * std::ldexp(sigma, 10));
  COVEY_ASSERT(scaled >= 1 && scaled <= 0x1p100);
  variance_ = static_cast<Uint128>(scaled);
  const auto scale =
      static_cast<std::uint64_t>(std::floor(sigma)) + 1;  // any makes the draws exact
  laplace_ = DiscreteLaplace(scale);
  denominator_ = Uint256::of(variance_).times(scale).times(scale).times(std::uint64_t{1} << 21);
  const std::uint64_t top = denominator_.top(shift_);
  reciprocal_low_ = static_cast<std::uint64_t>((Uint128{1} << 126) / (Uint128{top} + 1));
  reciprocal_high_ = static_cast<std::uint64_t>((Uint128{1} << 126) / top) + 1;
}

// gamma = difference^2 / denominator in fixed point with 64 fractional bits, from the top 64 bits
// of both: q <= difference^2 / 2^(2 s + 64) < q + 4, where s is how far difference was shifted, and
// the reciprocal likewise.
DiscreteGaussian::Exponent DiscreteGaussian::bounds(Uint128 difference) const {
  if (difference == 0) return {};
  const auto high_word = static_cast<std::uint64_t>(difference >> 64);
  const auto low_word = static_cast<std::uint64_t>(difference);
  const int shift = high_word != 0 ? 64 - std::countl_zero(high_word) : -std::countl_zero(low_word);
  const auto top =
      shift >= 0 ? static_cast<std::uint64_t>(difference >> shift) : low_word << -shift;
  const Uint128 square = (static_cast<Uint128>(top) * top) >> 64;
  const int down = shift_ - 2 * shift - 2;
  // gamma >= 2^57: e^-gamma is no probability that a draw meets.
  if (down <= 0) return {std::uint64_t{1} << 57, 0, 0};
  if (down >= 128) return {0, 0, 0};
  const Uint128 low = (square * reciprocal_low_) >> down;
  const Uint128 high = ((square + 4) * reciprocal_high_) >> down;
  if ((low >> 64) != (high >> 64)) return {0, 1, 0};  // an empty interval: bounds that say nothing
  return {static_cast<std::uint64_t>(low >> 64), static_cast<std::uint64_t>(low),
          static_cast<std::uint64_t>(high)};
}

DiscreteGaussian::Exponent DiscreteGaussian::exact(Uint128 difference, Fraction& rest) const {
  rest = {Uint256::square(difference), denominator_};
  const std::uint64_t whole = divide(rest.numerator, rest.denominator).words[0];
  Fraction digits = rest;
  std::uint64_t floor = 0;
  for (int i = 0; i < 64; ++i) floor = (floor << 1) | (next_digit(digits) ? 1 : 0);
  return {whole, floor, floor};
}

// Bernoulli(exp(-gamma)), gamma = (|y| - sigma^2 / t)^2 / (2 sigma^2)
//   = (|y| t 2^20 - variance)^2 / (t^2 2^21 variance).
bool DiscreteGaussian::accept(std::uint64_t magnitude, SecretBits& bits) const {
  // magnitude < 2^61 and 2^20 t < 2^62: below 2^123, and its square below 2^246.
  const Uint128 scaled = static_cast<Uint128>(magnitude) * (laplace_.scale() << 20);
  const Uint128 difference = scaled > variance_ ? scaled - variance_ : variance_ - scaled;
  Fraction rest;
  Exponent gamma = bounds(difference);
  if (always_exact_ || gamma.low > gamma.high) gamma = exact(difference, rest);
  for (std::uint64_t i = 0; i < gamma.whole; ++i) {
    if (!bernoulli_exp_one(bits)) return false;
  }
  return bernoulli_exp(gamma.low, gamma.high, bits, [&] {
    exact(difference, rest);
    return rest;
  });
}

std::int64_t DiscreteGaussian::draw(SecretBits& bits) const {
  for (;;) {
    const std::int64_t candidate = laplace_.draw(bits);
    const auto magnitude = static_cast<std::uint64_t>(candidate < 0 ? -candidate : candidate);
    if (accept(magnitude, bits)) return candidate;
  }
}

}  // namespace covey::privacy
