#pragma once

#include <covey/int128.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::strategies {

/// Sums weighted vectors exactly in fixed point, so that the result has the same bits for any
/// order, any number of threads and any split into partial sums. Each term weight * x[i] is formed
/// in double (exact for whole weights up to 2^29) and split on two grids, each summed in int64: the
/// nearest multiple of 2^-17 and the remainder in multiples of 2^-69. Error: at most 2^-70 per
/// term, beside the one rounding of the product to double. Memory: 16 bytes per coordinate. Not
/// synchronised.
///
/// Overflow cannot happen. High word: a term below 2^26 is at most 2^43 units, and 2^20 - 1 of them
/// with all carries stay below 2^63. Low word: a remainder is at most 2^51 units, and after every
/// 2047 terms the low words are carried into the high ones.
class ExactSum {
 public:
  /// |weight * x[i]| must stay below this. Far above any update that training produces: 10^6
  /// examples moving a parameter by 67.
  static constexpr double kTermLimit = 0x1p26;
  /// Most terms in one sum, partial sums included.
  static constexpr std::uint64_t kMaxTerms = (std::uint64_t{1} << 20) - 1;

  ExactSum() = default;
  explicit ExactSum(std::size_t size);

  std::size_t size() const { return high_.size(); }
  std::uint64_t terms() const { return terms_; }

  /// Error, and nothing changed, if the size differs, a value or the weight is not finite, a term
  /// reaches kTermLimit (naming the coordinate and its value), or the sum is full.
  Result<void> add(std::span<const float> values, double weight);
  /// Adds another partial sum. Error, and nothing changed, if the size differs or the sum is full.
  Result<void> add(const ExactSum& other);
  void clear();

  /// The sum, rounded once to double per coordinate. `out` has size() entries.
  void read(std::span<double> out) const;

 private:
  Result<void> check(std::span<const float> values, double weight) const;
  void carry();

  std::vector<std::int64_t> high_;  ///< multiples of 2^-17
  std::vector<std::int64_t> low_;   ///< multiples of 2^-69
  std::uint64_t terms_ = 0;
  std::uint64_t low_bound_ =
      0;  ///< every |low_[i]| <= low_bound_ * 2^51; at most 2047 between calls
};

/// The same for one number, in multiples of 2^-66: |value| < 2^40, at most ExactSum::kMaxTerms
/// terms, so the sum stays below 2^126 units. Error: at most 2^-67 per term. Not synchronised.
class ExactScalarSum {
 public:
  static constexpr double kTermLimit = 0x1p40;

  /// Error, and nothing changed, if the value is not finite or reaches kTermLimit, or the sum is
  /// full.
  Result<void> add(double value);
  /// Adds another partial sum. Together they hold at most ExactSum::kMaxTerms terms (asserted: the
  /// ExactSum they belong to refuses first).
  void add(const ExactScalarSum& other);
  /// The sum, rounded once to double.
  double read() const;

 private:
  Int128 units_ = 0;  ///< multiples of 2^-66
  std::uint64_t terms_ = 0;
};

}  // namespace covey::strategies
