#pragma once

#include <covey/run_config.hpp>
#include <cstdint>

namespace covey::strategies {

/// s(t) in (0, 1]: what an update counts that began with a model t steps older than the one it
/// moves. constant: 1; polynomial: (1 + t)^-a; hinge: 1 for t <= b, else 1 / (a (t - b) + 1). Xie
/// et al. 2019, section 5.2 (a is asynchronous.exponent or .hinge-slope, b .hinge-from). FedBuff
/// (Nguyen et al. 2022, section 4) takes the polynomial with a = 1/2.
double staleness_weight(const AsynchronousConfig& config, std::uint32_t staleness);

}  // namespace covey::strategies
