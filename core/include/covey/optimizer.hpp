#pragma once

#include <cstdint>
#include <string_view>

namespace covey {

/// Values travel: never renumber.
enum class OptimizerKind : std::uint8_t {
  kSgd = 1,       ///< w -= lr * g
  kMomentum = 2,  ///< m = momentum * m + g; w -= lr * m
  kNesterov = 3,  ///< m = momentum * m + g; w -= lr * (g + momentum * m)
  kAdam = 4,      ///< Kingma and Ba 2015, with bias correction; weight decay is added to g
  kAdamW = 5,     ///< Loshchilov and Hutter 2019: w -= lr * weight_decay * w, apart from g
};

/// How a device turns gradients into steps. Its state starts at zero in every round.
struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::kSgd;
  float momentum = 0.9f;      ///< momentum, nesterov
  float beta1 = 0.9f;         ///< adam, adamw
  float beta2 = 0.999f;
  float epsilon = 1e-8f;
  float weight_decay = 0;     ///< l2: g += weight_decay * w (adamw: decoupled)
  float clip_norm = 0;        ///< gradients with a larger l2 norm are scaled to it; 0: no limit
  bool operator==(const OptimizerSpec&) const = default;
};

std::string_view to_string(OptimizerKind kind);

}  // namespace covey
