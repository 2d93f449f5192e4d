#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/privacy/clipping.hpp>
#include <cstddef>

namespace covey::privacy {
namespace {

// Squares of floats are exact in double and cannot overflow it (2^256 each), so the sum is finite
// exactly where every value is. Sixteen partial sums in a fixed order: vectors, and the same bits
// everywhere.
double sum_of_squares(std::span<const float> values) {
  constexpr std::size_t kLanes = 16;
  std::array<double, kLanes> partial{};
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      const double x = values[i + j];
      partial[j] += x * x;
    }
  }
  double sum = 0;
  for (; i < values.size(); ++i) sum += static_cast<double>(values[i]) * values[i];
  for (const double lane : partial) sum += lane;
  return sum;
}

// Rounding a product to float adds at most 2^-24 of it, so ||x|| * factor * (1 + 2^-24) < limit
// where factor = (1 - 2^-23) limit / ||x||. Values that become subnormal may round up by more than
// that: then it takes further steps, and zero is within any limit.
void scale_to(std::span<float> values, double norm, double limit) {
  constexpr int kMaxSteps = 8;
  for (int step = 0; step < kMaxSteps && norm > limit; ++step) {
    const double factor = (1 - 0x1p-23) * (limit / norm);
    for (float& x : values) x = static_cast<float>(factor * x);
    norm = std::sqrt(sum_of_squares(values));
  }
  if (norm > limit) std::fill(values.begin(), values.end(), 0.0f);
}

Error not_finite(std::span<const float> update) {
  const auto bad =
      std::find_if(update.begin(), update.end(), [](float x) { return !std::isfinite(x); });
  return invalid_argument(fmt::format(
      "coordinate {} of the update is {}: what is not finite has no norm to clip; lower the "
      "learning rate",
      bad - update.begin(), *bad));
}

Result<void> check(const PrivacyPlan& plan, const ModelLayout& layout, std::size_t size) {
  if (plan.clip == ClipKind::kNone) return {};
  if (!(plan.clip_norm > 0) || !std::isfinite(plan.clip_norm)) {
    return invalid_argument(fmt::format(
        "the plan clips updates to a norm of {}: it must be finite and above 0", plan.clip_norm));
  }
  if (plan.clip == ClipKind::kPerLayer && (layout.size() != size || layout.tensors().empty())) {
    return invalid_argument(fmt::format(
        "an update of {} parameters cannot be clipped layer by layer: the model's {} tensors "
        "have {}",
        size, layout.tensors().size(), layout.size()));
  }
  return {};
}

}  // namespace

Result<Clipped> clip_update(const PrivacyPlan& plan, const ModelLayout& layout,
                            std::span<float> update) {
  COVEY_TRY(check(plan, layout, update.size()));
  Clipped result;
  result.norm = std::sqrt(sum_of_squares(update));
  if (!std::isfinite(result.norm)) return not_finite(update);

  switch (plan.clip) {
    case ClipKind::kNone:
      break;
    case ClipKind::kFlat:
    case ClipKind::kAdaptive:
      result.clipped = result.norm > plan.clip_norm;
      scale_to(update, result.norm, plan.clip_norm);
      break;
    case ClipKind::kPerLayer: {
      const double limit = plan.clip_norm / std::sqrt(static_cast<double>(layout.tensors().size()));
      for (const TensorLayout& tensor : layout.tensors()) {
        const auto values = update.subspan(tensor.offset, tensor.size());
        const double norm = std::sqrt(sum_of_squares(values));
        result.clipped = result.clipped || norm > limit;
        scale_to(values, norm, limit);
      }
      // The square root and the division round to nearest: L limits may exceed S by 2^-52 of it.
      scale_to(update, std::sqrt(sum_of_squares(update)), plan.clip_norm);
      break;
    }
  }
  return result;
}

}  // namespace covey::privacy
