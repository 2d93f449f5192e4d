#include "layers/dropout.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

namespace {

/// Another key for each example, so that an example's mask does not depend on where a batch is cut
/// (SplitMix64's increment and finaliser, Steele et al. 2014).
std::uint64_t example_key(std::uint64_t key, std::size_t example) {
  std::uint64_t z = key + (example + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

/// The same mask in both passes: it is drawn again instead of stored.
template <typename Pass>
void drop(const DropoutStage& stage, const Pass& pass, const float* from, float* to) {
  for (std::size_t b = 0; b < pass.batch; ++b) {
    pass.kernels.dropout(from + b * stage.size, stage.size,
                         example_key(pass.random_key, pass.first_example + b), stage.rate,
                         to + b * stage.size);
  }
}

}  // namespace

Result<void> plan_dropout(Planner& planner) {
  const float rate = planner.layer().rate;
  if (!(rate >= 0 && rate < 1)) {  // not NaN either
    return planner.refuse(fmt::format("has rate {}; it is a chance in [0, 1)", rate));
  }
  if (rate == 0) {
    planner.add_nothing(planner.shape());
    return {};
  }
  COVEY_TRY(planner.check_sizes(0, planner.shape_size()));
  planner.add_stage(DropoutStage{planner.shape_size(), rate}, planner.shape());
  return {};
}

StageMemory memory_of(const DropoutStage&, std::size_t) { return {}; }

void forward(const DropoutStage& stage, const ForwardPass& pass) {
  if (pass.training) {
    drop(stage, pass, pass.inputs, pass.outputs);
  } else {
    std::copy_n(pass.inputs, pass.batch * stage.size, pass.outputs);
  }
}

void backward(const DropoutStage& stage, const BackwardPass& pass, const Descent&) {
  if (pass.gradient_inputs != nullptr) {
    drop(stage, pass, pass.gradient_outputs, pass.gradient_inputs);
  }
}

}  // namespace covey::models
