#pragma once

#include <covey/digest.hpp>
#include <covey/simulation/experiment.hpp>

namespace covey::simulation {

/// Tells experiments apart that would train differently: SHA-256 over the resolved run file, the
/// plan, the network's size, every device's number of examples, and a sample of the examples
/// themselves.
Digest fingerprint(const Experiment& experiment);

}  // namespace covey::simulation
