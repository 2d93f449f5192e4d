#pragma once

#include <covey/parameter_vector.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <span>

namespace covey::privacy {

struct Clipped {
  double norm = 0;       ///< l2, before
  bool clipped = false;  ///< flat and adaptive: norm > S; per layer: any tensor's
};

/// Scales `update` (R^d) down to the plan's norm. Flat and adaptive: x * min(1, S / ||x||). Per
/// layer: each of the layout's L tensors to S / sqrt(L), so the whole stays within S (McMahan et
/// al. 2018, section 3). After it ||update||_2 <= S also in single precision. Error: a value is not
/// finite.
Result<Clipped> clip_update(const PrivacyPlan& plan, const ModelLayout& layout,
                            std::span<float> update);

}  // namespace covey::privacy
