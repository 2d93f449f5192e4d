#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <string>
#include <vector>

#include "../../models/network_plan.hpp"
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
  std::size_t rows, columns, depth;
};

/// A and C with room beside their columns; B row-major or, transposed, column-major.
struct Product {
  Product(const Sizes& wanted, bool b_transposed, RandomStream& random)
      : sizes(wanted),
        transposed(b_transposed),
        a(random_floats(random, wanted.rows * (wanted.depth + 2))),
        b(random_floats(random, (wanted.depth + 3) * (wanted.columns + 3))),
        c(random_floats(random, wanted.rows * (wanted.columns + 5))),
        bias(random_floats(random, wanted.columns)) {}

  std::size_t b_row() const { return transposed ? sizes.depth + 3 : sizes.columns + 3; }
  float b_at(std::size_t k, std::size_t n) const {
    return transposed ? b[n * b_row() + k] : b[k * b_row() + n];
  }

  GemmTask task() {
    GemmTask task;
    task.a = a.data();
    task.a_row = sizes.depth + 2;
    task.b = b.data();
    task.b_row = b_row();
    task.c = c.data();
    task.c_row = sizes.columns + 5;
    task.rows = sizes.rows;
    task.columns = sizes.columns;
    task.depth = sizes.depth;
    return task;
  }

  /// Largest difference from start + factor * A B, and whether the floats beside C are as before.
  double error(const std::vector<float>& start, bool accumulate, bool biased, double factor) const {
    double worst = 0;
    for (std::size_t m = 0; m < sizes.rows; ++m) {
      for (std::size_t n = 0; n < sizes.columns + 5; ++n) {
        const std::size_t at = m * (sizes.columns + 5) + n;
        double expected = static_cast<double>(start[at]);
        if (n < sizes.columns) {
          if (!accumulate) expected = biased ? static_cast<double>(bias[n]) : 0;
          double sum = 0;
          for (std::size_t k = 0; k < sizes.depth; ++k) {
            sum +=
                static_cast<double>(a[m * (sizes.depth + 2) + k]) * static_cast<double>(b_at(k, n));
          }
          expected += factor * sum;
        }
        worst = std::max(worst, std::abs(expected - static_cast<double>(c[at])));
      }
    }
    return worst;
  }

  Sizes sizes;
  bool transposed;
  std::vector<float> a, b, c, bias;
};

const std::vector<Sizes> kSizes{{1, 1, 1},    {10, 16, 20},  {10, 32, 7},   {7, 33, 64},
                                {29, 70, 31}, {15, 47, 256}, {40, 35, 257}, {3, 100, 600}};

/// A buffer of exactly as many floats as were asked for, and the slack that every buffer has; what
/// lies behind it tells whether somebody wrote there.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(std::size_t floats)
      : used_(floats), values_(floats + 2 * kKernelSlack, kGuard) {}
  float* data() { return values_.data(); }
  bool intact() const {
    return std::all_of(values_.begin() + static_cast<std::ptrdiff_t>(used_), values_.end(),
                       [](float v) { return v == kGuard; });
  }

 private:
  static constexpr float kGuard = 12345.0f;
  std::size_t used_;
  std::vector<float> values_;
};

/// Forward and backward pass of a network's first layer in buffers of its own.
void check_memory(const ModelSpec& spec, std::size_t batch, RandomStream& random) {
  const auto plan = NetworkPlan::make(spec);
  REQUIRE(plan.ok());
  const PlannedStage& stage = plan->stages[0];
  const StageMemory memory = memory_of(stage.kind, batch);
  std::vector<float> parameters = random_floats(random, plan->layout.size());
  const std::vector<float> inputs = random_floats(random, batch * stage.inputs);
  const std::vector<float> above = random_floats(random, batch * stage.outputs);
  GuardedBuffer outputs(batch * stage.outputs), saved(memory.saved),
      forward_scratch(memory.forward_scratch), backward_scratch(memory.backward_scratch),
      gradient_outputs(batch * stage.outputs), gradient_inputs(batch * stage.inputs);
  std::copy(above.begin(), above.end(), gradient_outputs.data());
  const ForwardPass forward_pass{.kernels = *plan->kernels,
                                 .batch = batch,
                                 .parameters = parameters.data(),
                                 .inputs = inputs.data(),
                                 .skip = nullptr,
                                 .outputs = outputs.data(),
                                 .saved = saved.data(),
                                 .scratch = forward_scratch.data(),
                                 .training = true,
                                 .running = nullptr,
                                 .random_key = 0};
  std::visit([&](const auto& s) { forward(s, forward_pass); }, stage.kind);
  const BackwardPass backward_pass{.kernels = *plan->kernels,
                                   .batch = batch,
                                   .parameters = parameters.data(),
                                   .inputs = inputs.data(),
                                   .outputs = outputs.data(),
                                   .gradient_outputs = gradient_outputs.data(),
                                   .gradient_inputs = gradient_inputs.data(),
                                   .saved = saved.data(),
                                   .scratch = backward_scratch.data(),
                                   .random_key = 0};
  const Descent descent{.values = parameters.data(), .update = true, .learning_rate = 0.1f};
  std::visit([&](const auto& s) { backward(s, backward_pass, descent); }, stage.kind);
  CHECK(outputs.intact());
  CHECK(saved.intact());
  CHECK(forward_scratch.intact());
  CHECK(backward_scratch.intact());
  CHECK(gradient_outputs.intact());
  CHECK(gradient_inputs.intact());
}

}  // namespace

TEST_CASE("products with a packed operand agree with the definition", "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const bool transposed = GENERATE(false, true);
  constexpr std::uint64_t kSeed = 5;
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (const Sizes& sizes : kSizes) {
    for (const bool accumulate : {false, true}) {
      CAPTURE(isa, transposed, accumulate, sizes.rows, sizes.columns, sizes.depth, kSeed);
      Product product(sizes, transposed, random);
      const std::vector<float> start = product.c;
      std::vector<float> packed(packed_floats(sizes.depth, sizes.columns), 1e9f);
      kernels.pack_strips({.from = product.b.data(),
                           .from_row = product.b_row(),
                           .transposed = transposed,
                           .depth = sizes.depth,
                           .columns = sizes.columns,
                           .to = packed.data()});
      GemmTask task = product.task();
      task.b = packed.data();
      task.bias = product.bias.data();
      task.accumulate = accumulate;
      kernels.gemm_strips(task);
      // Partial sums stay below 64, whose last bit is 4e-6; a wrong element is off by about 0.3.
      CHECK(product.error(start, accumulate, true, 1) < 1e-4);
    }
  }
}

TEST_CASE("products in panels agree with the definition", "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const bool transposed = GENERATE(false, true);
  const float factor = GENERATE(1.0f, -0.25f);
  constexpr std::uint64_t kSeed = 6;
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (const Sizes& sizes : kSizes) {
    for (const bool accumulate : {false, true}) {
      CAPTURE(isa, transposed, factor, accumulate, sizes.rows, sizes.columns, sizes.depth, kSeed);
      Product product(sizes, transposed, random);
      const std::vector<float> start = product.c;
      std::vector<float> panel(kPanelFloats, 1e9f);
      GemmTask task = product.task();
      task.accumulate = accumulate;
      task.bias = accumulate ? nullptr : product.bias.data();
      kernels.gemm_panels(task, {transposed, factor, panel.data()});
      CHECK(product.error(start, accumulate, true, static_cast<double>(factor)) < 1e-4);
    }
  }
}

TEST_CASE("a product in panels has the bits of a plain one, relu included", "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  constexpr std::uint64_t kSeed = 8;
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (const Sizes& sizes : kSizes) {
    CAPTURE(isa, sizes.rows, sizes.columns, sizes.depth, kSeed);
    Product product(sizes, false, random);
    GemmTask task = product.task();
    task.bias = product.bias.data();
    task.relu = true;
    kernels.gemm(task);
    const std::vector<float> expected = product.c;
    std::fill(product.c.begin(), product.c.end(), 1e9f);
    std::vector<float> panel(kPanelFloats);
    kernels.gemm_panels(task, {.panel = panel.data()});
    for (std::size_t m = 0; m < sizes.rows; ++m) {
      const auto row = static_cast<std::ptrdiff_t>(m * task.c_row);
      CHECK(std::equal(product.c.begin() + row,
                       product.c.begin() + row + static_cast<std::ptrdiff_t>(sizes.columns),
                       expected.begin() + row));
    }
  }
}

TEST_CASE("the gates' functions are accurate to single precision", "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const reference::InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  std::vector<float> x;
  for (float v = 1e-6f; v < 90.0f; v *= 1.013f) {
    x.push_back(v);
    x.push_back(-v);
  }
  x.push_back(0.0f);
  std::vector<float> y(x.size());
  kernels.tanh(x.data(), x.size(), y.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(isa, x[i]);
    const double exact = std::tanh(static_cast<double>(x[i]));
    CHECK(std::abs(static_cast<double>(y[i]) - exact) <= 4e-7 * std::abs(exact));
  }
  kernels.sigmoid(x.data(), x.size(), y.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(isa, x[i]);
    const double exact = 1 / (1 + std::exp(-static_cast<double>(x[i])));
    // Below -87 the result is no normal number.
    const double tolerance = x[i] < -87.0f ? 1e-37 : 4e-7 * exact;
    CHECK(std::abs(static_cast<double>(y[i]) - exact) <= tolerance);
  }
}

TEST_CASE("recurrent layers stay within the memory they ask for", "[recurrent]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const std::size_t batch = GENERATE(1u, 5u);
  const std::uint32_t units = GENERATE(1u, 16u, 35u);
  const bool last_only = GENERATE(false, true);
  constexpr std::uint64_t kSeed = 3;
  const reference::InstructionSet scope(isa);
  RandomStream random(kSeed, RandomPurpose::kTraining);
  const LayerSpec lstm{.kind = LayerKind::kLstm, .units = units, .last_only = last_only};
  LayerSpec peephole_lstm = lstm;
  peephole_lstm.peephole = true;
  const LayerSpec gru{.kind = LayerKind::kGru, .units = units, .last_only = last_only};
  for (const LayerSpec& layer : {lstm, peephole_lstm, gru}) {
    CAPTURE(isa, batch, units, last_only, to_string(layer.kind), layer.peephole, kSeed);
    check_memory({{4, 5}, {layer, {.kind = LayerKind::kDense, .units = 2}}}, batch, random);
  }
}
