#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/strategies/exact_sum.hpp>
#include <limits>

#include "exact_sum_kernels.hpp"

namespace covey::strategies {
namespace {


constexpr double kHighUnit = 0x1p-17;
constexpr double kLowUnit = 0x1p-69;
constexpr int kLowBitsPerHigh = 52;  // one high unit is 2^52 low units
// 2047 terms of 2^51 units; two such sums together are still below 2^63.
constexpr std::uint64_t kLowBoundLimit = 2047;

constexpr double kScalarScale = 0x1p66;

// What moves from `low` to the high word so that [-2^51, 2^51) stays.
std::int64_t carry_of(std::int64_t low) {
  return (low + (std::int64_t{1} << (kLowBitsPerHigh - 1))) >> kLowBitsPerHigh;
}

std::int64_t without_carry(std::int64_t low) {
  return low - carry_of(low) * (std::int64_t{1} << kLowBitsPerHigh);
}

Error full(std::uint64_t terms) {
  return failed(
      fmt::format("the exact sum is full: {} terms, of at most {}", terms, ExactSum::kMaxTerms));
}

}  // namespace

ExactSum::ExactSum(std::size_t size) : high_(size), low_(size) {}

// One read of the values before the first write: a tenth of the memory traffic of the sum itself,
// and a refused vector needs no undoing.
Result<void> ExactSum::check(std::span<const float> values, double weight) const {
  if (values.size() != size()) {
    return invalid_argument(fmt::format("an exact sum of {} coordinates was given a vector of {}",
                                        size(), values.size()));
  }
  if (!std::isfinite(weight)) {
    return invalid_argument(fmt::format("the weight of a vector in an exact sum is {}", weight));
  }
  if (terms_ == kMaxTerms) return full(terms_ + 1);
  const auto largest =
      std::bit_cast<float>(exact_sum_kernels().front().max_magnitude(values.data(), values.size()));
  // Rounding is monotonic: no term is larger than this one.
  if (std::isfinite(largest) && std::abs(weight) * static_cast<double>(largest) < kTermLimit) {
    return {};
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return invalid_argument(fmt::format("coordinate {} is {}", i, values[i]));
    }
    const double term = weight * static_cast<double>(values[i]);
    if (!(std::abs(term) < kTermLimit)) {
      return invalid_argument(
          fmt::format("coordinate {} is {}: times the weight {} it reaches the limit {} of a sum",
                      i, values[i], weight, kTermLimit));
    }
  }
  COVEY_ASSERT(false && "a vector failed the check but none of its coordinates does");
}

Result<void> ExactSum::add(std::span<const float> values, double weight) {
  COVEY_TRY(check(values, weight));
  if (low_bound_ == kLowBoundLimit) carry();
  exact_sum_kernels().front().accumulate(values.data(), weight, values.size(), high_.data(),
                                         low_.data());
  ++low_bound_;
  ++terms_;
  return {};
}

Result<void> ExactSum::add(const ExactSum& other) {
  if (other.size() != size()) {
    return invalid_argument(fmt::format(
        "an exact sum of {} coordinates was given a partial sum of {}", size(), other.size()));
  }
  if (other.terms_ > kMaxTerms - terms_) return full(terms_ + other.terms_);
  const std::size_t count = size();
  for (std::size_t i = 0; i < count; ++i) {
    high_[i] += other.high_[i];
    low_[i] += other.low_[i];
  }
  terms_ += other.terms_;
  low_bound_ += other.low_bound_;
  if (low_bound_ > kLowBoundLimit) carry();
  return {};
}

void ExactSum::clear() {
  std::fill(high_.begin(), high_.end(), 0);
  std::fill(low_.begin(), low_.end(), 0);
  terms_ = 0;
  low_bound_ = 0;
}

void ExactSum::carry() {
  const std::size_t count = size();
  for (std::size_t i = 0; i < count; ++i) {
    high_[i] += carry_of(low_[i]);
    low_[i] = without_carry(low_[i]);
  }
  low_bound_ = 1;
}

void ExactSum::read(std::span<double> out) const {
  COVEY_ASSERT(out.size() == size());
  // Below 2^53 units the high word is exact in double, and the addition below rounds once.
  constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::int64_t high = high_[i] + carry_of(low_[i]);
    const std::int64_t low = without_carry(low_[i]);
    if (high > -kExactInDouble && high < kExactInDouble) {
      out[i] = static_cast<double>(high) * kHighUnit + static_cast<double>(low) * kLowUnit;
    } else {
      const Int128 units = static_cast<Int128>(high) * (Int128{1} << kLowBitsPerHigh) + low;
      out[i] = static_cast<double>(units) * kLowUnit;
    }
  }
}

Result<void> ExactScalarSum::add(double value) {
  if (!(std::abs(value) < kTermLimit)) {
    return invalid_argument(
        fmt::format("{} cannot enter an exact sum: it must be finite and below {} in magnitude",
                    value, kTermLimit));
  }
  if (terms_ == ExactSum::kMaxTerms) return full(terms_ + 1);
  // Scaling by a power of two is exact; nearbyint rounds to nearest, ties to even.
  units_ += static_cast<Int128>(std::nearbyint(value * kScalarScale));
  ++terms_;
  return {};
}

void ExactScalarSum::add(const ExactScalarSum& other) {
  COVEY_ASSERT(other.terms_ <= ExactSum::kMaxTerms - terms_);
  units_ += other.units_;
  terms_ += other.terms_;
}

double ExactScalarSum::read() const { return static_cast<double>(units_) / kScalarScale; }

}  // namespace covey::strategies
