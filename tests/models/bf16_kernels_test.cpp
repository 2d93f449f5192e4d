#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/bfloat16.hpp>
#include <covey/random.hpp>
#include <limits>
#include <string>
#include <vector>

#include "../../models/bf16/kernels_bf16.hpp"
#include "network_reference.hpp"

namespace {

using namespace covey;
using namespace covey::models;

constexpr std::uint64_t kSeed = 29;
constexpr std::size_t kSlack = 64;  // more than kernels may read behind an end
/// "": whatever is best, with vdpbf16ps where the processor has it.
const std::vector<std::string> kInstructionSets{"sse2", "avx2", "avx512", ""};

/// n bfloat16 values in [-1, 1), then NaN, which must not leak in.
std::vector<std::uint16_t> random_values(std::size_t n, RandomStream& random) {
  std::vector<std::uint16_t> values(n + kSlack, 0x7fff);
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = float_to_bf16(static_cast<float>(random.uniform(-1, 1)));
  }
  return values;
}

double value(std::uint16_t bits) { return static_cast<double>(bf16_to_float(bits)); }

/// Distance from a bfloat16 value of this size to its neighbours: 8 significant bits.
double spacing(double x) { return std::ldexp(1.0, std::ilogb(std::abs(x) + 1e-30) - 7); }

struct Shape {
  std::size_t rows, depth, columns;
};
const std::vector<Shape> kShapes{{1, 1, 1},    {3, 2, 5},   {10, 7, 16},  {15, 9, 17},
                                 {14, 20, 32}, {29, 3, 33}, {13, 31, 48}, {10, 64, 200}};

}  // namespace

TEST_CASE("products of bf16 operands are sums in fp32", "[bf16]") {
  const std::string isa = GENERATE(from_range(kInstructionSets));
  const reference::InstructionSet scope(isa);
  const Bf16Kernels& kernels = selected_bf16_kernels();
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (const Shape& shape : kShapes) {
    CAPTURE(isa, kernels.instruction_set, kSeed, shape.rows, shape.depth, shape.columns);
    const auto a = random_values(shape.rows * shape.depth, random);
    const auto b = random_values(shape.depth * shape.columns, random);
    std::vector<float> bias(shape.columns);
    for (float& x : bias) x = static_cast<float>(random.uniform(-1, 1));
    constexpr float kUntouched = 7;
    std::vector<float> c(shape.rows * (shape.columns + 1), kUntouched);
    Bf16Product product;
    product.a = a.data();
    product.a_row = shape.depth;
    product.b = b.data();
    product.b_row = shape.columns;
    product.c = c.data();
    product.c_row = shape.columns + 1;
    product.rows = shape.rows;
    product.columns = shape.columns;
    product.depth = shape.depth;
    product.bias = bias.data();
    product.relu = true;
    kernels.product(product);
    double worst = 0;
    bool outside = false;
    for (std::size_t m = 0; m < shape.rows; ++m) {
      for (std::size_t n = 0; n < shape.columns; ++n) {
        double sum = static_cast<double>(bias[n]);
        for (std::size_t k = 0; k < shape.depth; ++k) {
          sum += value(a[m * shape.depth + k]) * value(b[k * shape.columns + n]);
        }
        const double got = static_cast<double>(c[m * (shape.columns + 1) + n]);
        worst = std::max(worst, std::isnan(got) ? 1e9 : std::abs(got - std::max(sum, 0.0)));
      }
      outside |= c[m * (shape.columns + 1) + shape.columns] != kUntouched;
    }
    CHECK(worst < 1e-5);  // 64 additions of numbers below 1, 2^-24 each
    CHECK_FALSE(outside);
  }
}

TEST_CASE("an update lands on one of the two bf16 neighbours of the exact step", "[bf16]") {
  const std::string isa = GENERATE(from_range(kInstructionSets));
  const bool anchored = GENERATE(false, true);
  const reference::InstructionSet scope(isa);
  const Bf16Kernels& kernels = selected_bf16_kernels();
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (const auto& [inputs, rows, outputs] : kShapes) {
    CAPTURE(isa, kernels.instruction_set, kSeed, anchored, inputs, rows, outputs);
    const auto x = random_values(rows * inputs, random);
    const auto gradient = random_values(rows * outputs, random);
    const auto anchor = random_values(inputs * outputs, random);
    const auto before = random_values(inputs * outputs, random);
    auto weights = before;
    std::vector<std::uint32_t> pairs((rows + 1) / 2 * inputs + kSlack);
    kernels.pack_pairs(x.data(), rows, inputs, pairs.data());
    Bf16Update update;
    update.weights = weights.data();
    update.input_pairs = pairs.data();
    update.pair_row = inputs;
    update.gradient = gradient.data();
    update.rows = rows;
    update.inputs = inputs;
    update.outputs = outputs;
    update.step = {.keep = 0.9f,
                   .pull = anchored ? 0.05f : 0.0f,
                   .factor = -0.01f,
                   .anchor = anchored ? anchor.data() : nullptr,
                   .rounding = {.key = 5, .index = 3}};
    kernels.update(update);
    double worst = 0;  // in spacings
    for (std::size_t i = 0; i < inputs; ++i) {
      for (std::size_t o = 0; o < outputs; ++o) {
        double exact = 0;
        for (std::size_t r = 0; r < rows; ++r) {
          exact += value(x[r * inputs + i]) * value(gradient[r * outputs + o]);
        }
        const std::size_t at = i * outputs + o;
        exact = 0.9 * value(before[at]) - 0.01 * exact + (anchored ? 0.05 * value(anchor[at]) : 0);
        const double distance = std::abs(value(weights[at]) - exact) / spacing(exact);
        worst = std::max(worst, std::isnan(distance) ? 1e9 : distance);
      }
    }
    // 1 but for what fp32 rounds: 2^-20 of sums below 1, where the spacing is above 2^-18 here
    CHECK(worst < 1.3);
    CHECK(std::equal(weights.begin() + static_cast<std::ptrdiff_t>(inputs * outputs), weights.end(),
                     before.begin() + static_cast<std::ptrdiff_t>(inputs * outputs)));
  }
}

TEST_CASE("many steps far below half a unit in the last place move weights by what they say",
          "[bf16]") {
  const std::string isa = GENERATE(from_range(kInstructionSets));
  const reference::InstructionSet scope(isa);
  const Bf16Kernels& kernels = selected_bf16_kernels();
  constexpr std::size_t kWeights = 4096;
  constexpr int kSteps = 1000;
  const std::uint16_t one = float_to_bf16(1.0f);
  const std::vector<float> gradient(kWeights + kSlack, 1.0f);
  std::vector<std::uint16_t> weights(kWeights + kSlack, one);
  for (int step = 0; step < kSteps; ++step) {
    // 2^-8 below 1 lies the next value: nearest rounding would not move at all
    kernels.descend(
        weights.data(), gradient.data(), kWeights,
        {.factor = -1e-5f, .rounding = {.key = kSeed * 1000 + static_cast<std::uint64_t>(step)}});
  }
  double mean = 0;
  for (std::size_t i = 0; i < kWeights; ++i) mean += value(weights[i]) / kWeights;
  CAPTURE(isa, kSeed, mean);
  // Variance of one weight: kSteps * 2^-8 * 1e-5 = 3.9e-5, so 1e-4 for the mean of 4096; 5 of them.
  CHECK(mean == Approx(1.0 - kSteps * 1e-5).margin(5e-4));
}

TEST_CASE("a dense update's rounding has no bias either", "[bf16]") {
  const std::string isa = GENERATE(from_range(kInstructionSets));
  const reference::InstructionSet scope(isa);
  const Bf16Kernels& kernels = selected_bf16_kernels();
  constexpr std::size_t kInputs = 40, kOutputs = 50;  // whole tiles and a rest
  std::vector<std::uint16_t> weights(kInputs * kOutputs + kSlack, float_to_bf16(-1.0f));
  const std::vector<std::uint32_t> pairs(kInputs + kSlack, float_to_bf16(1.0f));  // one row of ones
  const std::vector<std::uint16_t> gradient(kOutputs + kSlack, float_to_bf16(1.0f));
  Bf16Update update;
  update.weights = weights.data();
  update.input_pairs = pairs.data();
  update.pair_row = kInputs;
  update.gradient = gradient.data();
  update.rows = 1;
  update.inputs = kInputs;
  update.outputs = kOutputs;
  constexpr int kSteps = 2000;
  for (int step = 0; step < kSteps; ++step) {
    update.step.factor = -1e-5f;
    update.step.rounding.key = kSeed * 10000 + static_cast<std::uint64_t>(step);
    kernels.update(update);
  }
  double mean = 0;
  for (std::size_t i = 0; i < kInputs * kOutputs; ++i) {
    mean += value(weights[i]) / (kInputs * kOutputs);
  }
  CAPTURE(isa, kSeed, mean);
  // spacing 2^-7 above 1: deviation sqrt(2000 * 2^-7 * 1e-5 / 2000) = 2.8e-4; 5 of them
  CHECK(mean == Approx(-1.0 - kSteps * 1e-5).margin(1.4e-3));
}

TEST_CASE("every instruction set rounds a value alike", "[bf16]") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> values{0.0f,
                            -0.0f,
                            1.0f,
                            1.00390625f,
                            1.01171875f,
                            1e-40f,
                            -1e-40f,
                            3.3895e38f,
                            3.4e38f,
                            kInfinity,
                            -kInfinity,
                            std::numeric_limits<float>::quiet_NaN(),
                            std::bit_cast<float>(0x7fffffffU),
                            std::bit_cast<float>(0xff800001U)};
  RandomStream random(kSeed, RandomPurpose::kTraining);
  while (values.size() < 75) values.push_back(static_cast<float>(random.normal()));
  std::vector<std::uint16_t> first;
  for (const std::string& isa : kInstructionSets) {
    CAPTURE(isa, kSeed);
    const reference::InstructionSet scope(isa);
    const Bf16Kernels& kernels = selected_bf16_kernels();
    std::vector<std::uint16_t> nearest(values.size()), stochastic(values.size());
    kernels.narrow(values.data(), values.size(), nearest.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      CAPTURE(i, values[i]);
      CHECK(nearest[i] == float_to_bf16(values[i]));
    }
    kernels.narrow_stochastic(values.data(), values.size(), {kSeed, 4}, stochastic.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(std::isnan(bf16_to_float(stochastic[i])) == std::isnan(values[i]));
    }
    if (first.empty()) first = stochastic;
    CHECK(stochastic == first);
    std::vector<float> wide(values.size());
    kernels.widen(nearest.data(), nearest.size(), wide.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(std::bit_cast<std::uint32_t>(wide[i]) ==
            std::bit_cast<std::uint32_t>(bf16_to_float(nearest[i])));
    }
  }
}
