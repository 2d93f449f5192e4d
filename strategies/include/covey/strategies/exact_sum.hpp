#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <covey/result.hpp>

namespace covey::strategies {

/// Sums weighted vectors exactly in fixed point, so that the result has the same bits for any order,
/// any number of threads and any split into partial sums. Each term weight * x[i] is formed in double
/// and split on two grids: a multiple of 2^-24 and a remainder in multiples of 2^-67, each summed in
/// int64. Error: at most 2^-68 per term (beside the one rounding of the product to double).
/// Limits: |weight * x[i]| < 2^26 per term and at most 2^12 * 2^8 terms; `add` refuses a term that is
/// too large (or not finite) before it changes anything. Memory: 16 bytes per coordinate.
/// Not synchronised.
class ExactSum {
 public:
  ExactSum() = default;
  explicit ExactSum(std::size_t size);

  std::size_t size() const { return high_.size(); }
  std::uint64_t terms() const { return terms_; }

  Result<void> add(std::span<const float> values, double weight);
  /// Adds another partial sum of the same size.
  Result<void> add(const ExactSum& other);
  void clear();

  /// The sum, rounded once to double per coordinate. `out` has size() entries.
  void read(std::span<double> out) const;

 private:
  std::vector<std::int64_t> high_;
  std::vector<std::int64_t> low_;
  std::uint64_t terms_ = 0;
};

/// The same for one number; range and error as above with 2^36 for the largest sum.
class ExactScalarSum {
 public:
  Result<void> add(double value);
  void add(const ExactScalarSum& other);
  double read() const;

 private:
  __extension__ __int128 units_ = 0;  ///< multiples of 2^-80
};

}  // namespace covey::strategies
