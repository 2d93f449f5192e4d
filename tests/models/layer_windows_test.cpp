#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <string>
#include <vector>

#include "../../models/network_plan.hpp"
#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::reference;

/// One image of ones through one layer whose weights are all one, biases zero.
std::vector<float> through(const std::vector<std::uint32_t>& image, const LayerSpec& layer) {
  const auto plan = NetworkPlan::make({image, {layer, {kFlatten}, dense(2)}}).value();
  const PlannedStage& stage = plan.stages[0];
  std::vector<float> parameters(plan.layout.size(), 1.0f);
  const auto& bias = plan.layout.tensors()[1];
  if (stage.parameters > 0)
    std::fill_n(parameters.begin() + static_cast<std::ptrdiff_t>(bias.offset), bias.size(), 0.0f);
  const StageMemory memory = memory_of(stage.kind, 1);
  std::vector<float> inputs(stage.inputs + kKernelSlack, 1.0f);
  std::vector<float> outputs(stage.outputs + kKernelSlack, -7.0f);
  std::vector<float> saved(memory.saved + kKernelSlack), scratch(memory.forward_scratch);
  const ForwardPass pass{.kernels = *plan.kernels,
                         .batch = 1,
                         .parameters = parameters.data(),
                         .inputs = inputs.data(),
                         .skip = nullptr,
                         .outputs = outputs.data(),
                         .saved = saved.data(),
                         .scratch = scratch.data(),
                         .training = false,
                         .running = nullptr,
                         .random_key = 0};
  std::visit([&](const auto& kind) { forward(kind, pass); }, stage.kind);
  outputs.resize(stage.outputs);
  return outputs;
}

using Values = std::vector<float>;

}  // namespace

TEST_CASE("same padding puts the smaller half of its zeros before the image", "[layers]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const InstructionSet scope(isa);
  for (const LayerSpec& layer : {convolution(1, 3, 2), depthwise(3, 2)}) {
    CAPTURE(isa, to_string(layer.kind));
    // 4: two outputs reach over 5, one zero, behind: the last row and column see two of three
    CHECK(through({4, 4, 1}, layer) == Values{9, 6, 6, 4});
    // 5: three outputs reach over 7, one zero on each side
    CHECK(through({5, 5, 1}, layer) == Values{4, 6, 4, 6, 9, 6, 4, 6, 4});
  }
  // an even kernel of stride 1 lacks one: none before, one behind
  CHECK(through({2, 3, 1}, convolution(1, 2)) == Values{4, 4, 2, 2, 2, 1});
  // a stride beyond the kernel leaves gaps and needs no zeros
  CHECK(through({4, 4, 1}, convolution(1, 1, 3)) == Values{1, 1, 1, 1});
}

TEST_CASE("valid padding and pooling leave out windows that do not fit", "[layers]") {
  CHECK(through({4, 6, 1}, convolution(1, 3, 2, Padding::kValid)) == Values{9, 9});
  CHECK(through({4, 6, 1}, depthwise(3, 1, Padding::kValid)) == Values(8, 9.0f));
  CHECK(through({5, 5, 1}, max_pool(2)) == Values(4, 1.0f));
  CHECK(through({5, 5, 1}, average_pool(3, 1)).size() == 9);
  CHECK(through({5, 7, 1}, average_pool(2, 3)).size() == 2 * 2);
}

TEST_CASE("gelu, tanh and sigmoid agree with double precision over their whole range", "[layers]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  const InstructionSet scope(isa);
  const Kernels& kernels = selected_kernels();
  std::vector<float> x;
  for (int i = -2000; i <= 2000; ++i) x.push_back(static_cast<float>(i) * 0.01f);
  for (const float extreme : {0.0f, 1e-30f, -1e-8f, 50.0f, -50.0f, 1e30f, -1e30f}) {
    x.push_back(extreme);
  }
  struct Activation {
    LayerKind kind;
    void (*forward)(const float*, std::size_t, float*);
    void (*backward)(const float*, std::size_t, float*);
    bool from_outputs;
  };
  const std::vector<Activation> activations{
      {kGelu, kernels.gelu, kernels.gelu_backward, false},
      {kTanh, kernels.tanh, kernels.tanh_backward, true},
      {kSigmoid, kernels.sigmoid, kernels.sigmoid_backward, true}};
  for (const Activation& a : activations) {
    Values y(x.size()), slope(x.size(), 1.0f);
    a.forward(x.data(), x.size(), y.data());
    a.backward(a.from_outputs ? y.data() : x.data(), x.size(), slope.data());
    double worst = 0, worst_slope = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto exact = static_cast<double>(x[i]);
      const double scale = std::max(1.0, std::abs(exact));
      worst =
          std::max(worst, std::abs(static_cast<double>(y[i]) - activation(a.kind, exact)) / scale);
      worst_slope = std::max(
          worst_slope, std::abs(static_cast<double>(slope[i]) - activation_slope(a.kind, exact)));
    }
    CAPTURE(isa, to_string(a.kind));
    CHECK(worst < 4e-7);
    CHECK(worst_slope < 2e-6);
    const Values bad{std::nanf("")};
    Values result(1);
    a.forward(bad.data(), 1, result.data());
    CHECK(std::isnan(result[0]));
  }
}
