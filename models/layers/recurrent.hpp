#pragma once

#include <cstddef>
#include <cstdint>

#include "layers/layer.hpp"
#include "layers/row_products.hpp"

/// What the recurrent layers share. Rows of whole sequences are [batch x steps], as the layers
/// around expect them, so that the products over all steps are plain ones.
namespace covey::models {

/// Floats from one row of `columns` to the next: whole cache lines, and one more, since rows a
/// multiple of 4 KiB apart would all fall on one set of the first-level cache.
constexpr std::size_t padded_row(std::size_t columns) { return (columns + 15) / 16 * 16 + 16; }

/// Floats that a matrix [depth x columns] takes in strips, of any instruction set.
constexpr std::size_t packed_floats(std::size_t depth, std::size_t columns) {
  return (columns + kWidestStrip - 1) / kWidestStrip * kWidestStrip * depth;
}

/// Hands out parts of a block of floats, each at a cache line.
class Parts {
 public:
  std::size_t take(std::size_t floats) {
    const std::size_t at = size_;
    size_ += (floats + kKernelSlack + 15) / 16 * 16;
    return at;
  }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_ = 0;
};

/// A recurrent layer's matrices: W [inputs x gates], of the inputs, and U [units x gates], of the
/// state. `gates` columns in all.
struct RecurrentWeights {
  std::size_t inputs = 0;
  std::size_t units = 0;
  std::size_t gates = 0;
  std::size_t weight = 0;     ///< offset in the parameter vector
  std::size_t recurrent = 0;  ///< likewise

  /// The product of all rows' inputs with W; gates lie `row` floats apart.
  RowProduct input_product(std::size_t rows, std::size_t row) const {
    return {rows, inputs, gates, row, gates};
  }
  /// The product of all rows' states with the first `columns` of U.
  RowProduct state_product(std::size_t rows, std::size_t row, std::size_t columns) const {
    return {rows, units, columns, row, gates};
  }
};

/// What the layers refuse alike. gates, biases: vectors of `units` values that W and U, and all
/// other tensors, have.
Result<void> check_recurrent(const Planner& planner, std::uint64_t gates, std::uint64_t biases);

/// outputs [batch x units] = each example's last of hidden [batch x steps x units].
void copy_last_steps(const float* hidden, std::size_t batch, std::size_t steps, std::size_t units,
                     float* outputs);

/// gates [batch x steps x row] = 0 at each example's first step, whose state before is zero: then
/// dU is one product of all states but the last row's with the gates one row further on.
void clear_first_steps(float* gates, std::size_t batch, std::size_t steps, std::size_t row);

}  // namespace covey::models
