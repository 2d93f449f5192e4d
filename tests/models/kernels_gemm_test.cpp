#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <string>
#include <vector>

#include "../../models/kernels/kernels.hpp"
#include "network_reference.hpp"

namespace {

using namespace covey;
using namespace covey::models;

std::vector<float> random_floats(RandomStream& random, std::size_t n) {
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(random.uniform(-1, 1));
  return values;
}

struct Sizes {
  std::size_t rows, columns, depth, segments;
};

/// Element (m, n) of the product as GemmTask defines it, in double precision.
double product_at(const GemmTask& task, std::size_t m, std::size_t n) {
  double sum = 0;
  for (std::size_t s = 0; s < task.segments; ++s) {
    for (std::size_t k = 0; k < task.depth; ++k) {
      sum += static_cast<double>(task.a[m * task.a_row + s * task.a_segment + k * task.a_col]) *
             static_cast<double>(task.b[(s * task.depth + k) * task.b_row + n]);
    }
  }
  return sum;
}

/// One product with every start and relu, checking what lies beside C's columns too.
void check_product(const Kernels& kernels, const Sizes& sizes, bool transposed,
                   std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kTraining);
  const std::size_t depth = sizes.depth * sizes.segments;
  const auto a = random_floats(random, sizes.rows * depth);
  const auto b = random_floats(random, depth * (sizes.columns + 3));
  const auto bias = random_floats(random, sizes.columns);
  const std::size_t c_row = sizes.columns + 5;
  const auto start = random_floats(random, sizes.rows * c_row);
  for (const bool accumulate : {false, true}) {
    for (const bool with_bias : {false, true}) {
      if (accumulate && with_bias) continue;
      std::vector<float> c = start;
      GemmTask task;
      task.a = a.data();
      task.a_row = transposed ? 1 : depth;
      task.a_col = transposed ? sizes.rows : 1;
      task.a_segment = transposed ? sizes.depth * sizes.rows : sizes.depth;
      task.b = b.data();
      task.b_row = sizes.columns + 3;
      task.c = c.data();
      task.c_row = c_row;
      task.rows = sizes.rows;
      task.columns = sizes.columns;
      task.depth = sizes.depth;
      task.segments = sizes.segments;
      task.bias = with_bias ? bias.data() : nullptr;
      task.accumulate = accumulate;
      task.relu = with_bias;
      kernels.gemm(task);
      double worst = 0;
      std::size_t touched = 0;
      for (std::size_t m = 0; m < sizes.rows; ++m) {
        for (std::size_t n = 0; n < c_row; ++n) {
          const float before = start[m * c_row + n];
          const float after = c[m * c_row + n];
          if (n >= sizes.columns) {
            touched += before != after ? 1 : 0;
            continue;
          }
          double expected = product_at(task, m, n);
          if (accumulate) expected += static_cast<double>(before);
          if (with_bias) expected = std::max(0.0, expected + static_cast<double>(bias[n]));
          worst = std::max(worst, std::abs(static_cast<double>(after) - expected));
        }
      }
      CAPTURE(sizes.rows, sizes.columns, sizes.depth, sizes.segments, transposed, accumulate,
              with_bias, seed);
      CHECK(worst < 1e-5);  // a sum of up to 60 products of order one, rounded to 2^-24 each
      CHECK(touched == 0);
    }
  }
}

}  // namespace

TEST_CASE("products of every tile height and width agree with the definition", "[kernels]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  CAPTURE(isa, kernels.instruction_set);
  for (const bool transposed : {false, true}) {
    for (std::size_t rows = 1; rows <= 30; ++rows) {
      check_product(kernels, {rows, 1 + rows * 7 % 40, 3, 1}, transposed, rows);
    }
    for (std::size_t columns = 1; columns <= 70; ++columns) {
      check_product(kernels, {1 + columns % 15, columns, 5, 1}, transposed, 100 + columns);
    }
    check_product(kernels, {14, 32, 12, 5}, transposed, 201);
    check_product(kernels, {10, 10, 60, 1}, transposed, 202);
    check_product(kernels, {7, 33, 1, 3}, transposed, 203);
  }
}

TEST_CASE("softmax agrees with double precision for any number of classes", "[kernels]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  constexpr std::uint64_t kSeed = 21;
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (std::size_t classes = 2; classes <= 40; ++classes) {
    std::vector<float> logits(classes);
    for (float& z : logits) z = static_cast<float>(random.uniform(-20, 20));
    const auto label = static_cast<std::int32_t>(random.below(classes));
    // as for every buffer of a workspace, a vector's room behind the end
    std::vector<float> gradient(classes, 0.0f);
    const SoftmaxResult result =
        kernels.softmax(logits.data(), &label, 1, classes, 0.5f, gradient.data());
    double top = -1e9;
    double sum = 0;
    for (const float z : logits) top = std::max(top, static_cast<double>(z));
    for (const float z : logits) sum += std::exp(static_cast<double>(z) - top);
    CAPTURE(isa, classes, kSeed);
    const double score = static_cast<double>(logits[static_cast<std::size_t>(label)]);
    CHECK(result.loss_sum == Approx(std::log(sum) + top - score).epsilon(1e-6).margin(1e-6));
    CHECK(result.correct == (score == top ? 1 : 0));
    for (std::size_t c = 0; c < classes; ++c) {
      const double p = std::exp(static_cast<double>(logits[c]) - top) / sum;
      const double expected = 0.5 * (p - (c == static_cast<std::size_t>(label) ? 1 : 0));
      CHECK(static_cast<double>(gradient[c]) == Approx(expected).epsilon(1e-6).margin(1e-7));
    }
  }
}

TEST_CASE("a pooling window gives its gradient to its first maximum only", "[kernels]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  const PoolShape shape{.height = 2, .width = 5, .channels = 1, .kernel = 2};
  const std::vector<float> x{3, 3, 0, 1, 9,  //
                             3, 3, 2, 2, 9};
  std::vector<float> y(2);
  kernels.max_pool(shape, x.data(), y.data());
  CHECK(y == std::vector<float>{3, 2});
  const std::vector<float> gradient_y{5, 7};
  std::vector<float> gradient_x(10, -1);
  kernels.max_pool_backward(shape, x.data(), y.data(), gradient_y.data(), gradient_x.data());
  CHECK(gradient_x == std::vector<float>{5, 0, 0, 0, 0,  //
                                         0, 0, 7, 0, 0});
}
