#include "network_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "planner.hpp"

namespace covey::models {

StageMemory memory_of(const Stage& stage, std::size_t batch) {
  return std::visit([batch](const auto& kind) { return memory_of(kind, batch); }, stage);
}

std::size_t NetworkPlan::last_residual(std::size_t s) const {
  std::size_t last = s;
  for (std::size_t a = s + 1; a < stages.size(); ++a) {
    if (stages[a].skip == s + 1) last = a;
  }
  return last;
}

bool NetworkPlan::needs_whole_batch() const {
  return std::ranges::any_of(stages, [](const PlannedStage& stage) {
    return std::holds_alternative<BatchNormStage>(stage.kind) ||
           std::holds_alternative<RangeStage>(stage.kind);
  });
}

void TensorInit::draw(Initialisation scheme, RandomStream& random, std::span<float> values) const {
  const bool zero_bias = kind == Kind::kBias && scheme != Initialisation::kFanIn;
  if (kind == Kind::kOnes || kind == Kind::kZeros || zero_bias) {
    std::ranges::fill(values, kind == Kind::kOnes ? 1.0f : 0.0f);
    return;
  }
  const auto in = static_cast<double>(fan_in);
  const auto both = static_cast<double>(fan_in + fan_out);
  double deviation = 0;  // of a normal distribution
  double bound = 0;      // of a uniform one
  if (kind == Kind::kNormal) {
    deviation = 1;
  } else {
    switch (scheme) {
      case Initialisation::kFanIn:
        bound = 1.0 / std::sqrt(in);
        break;
      case Initialisation::kHeNormal:
        deviation = std::sqrt(2.0 / in);
        break;
      case Initialisation::kHeUniform:
        bound = std::sqrt(6.0 / in);
        break;
      case Initialisation::kGlorotNormal:
        deviation = std::sqrt(2.0 / both);
        break;
      case Initialisation::kGlorotUniform:
        bound = std::sqrt(6.0 / both);
        break;
    }
  }
  for (float& value : values) {
    value = static_cast<float>(deviation > 0 ? random.normal(0, deviation)
                                             : random.uniform(-bound, bound));
  }
}

Result<NetworkPlan> NetworkPlan::make(const ModelSpec& spec) {
  if (!spec.torchscript.empty()) {
    return invalid_argument("the model is a TorchScript file, which only libtorch can run");
  }
  NetworkPlan plan;
  plan.spec = spec;
  const char* isa = nullptr;
  if (!isa_override_valid(&isa)) {
    return invalid_argument(fmt::format(
        "the environment variable COVEY_ISA is \"{}\"; there are sse2, avx2 and avx512", isa));
  }
  plan.kernels = &selected_kernels();
  COVEY_TRY(Planner(spec, plan).run());
  return plan;
}

}  // namespace covey::models
