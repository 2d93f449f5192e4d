#pragma once

#include <covey/run_config.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace covey::simulation {

/// Which faults a seed stands for, and how often they strike: each seed switches a random subset on
/// (swarm testing, Groce et al. 2012: leaving kinds of faults out finds what the mixture of all of
/// them hides). They stop with half of the run's rounds, or when these could have run into their
/// deadlines, so that the second half shows whether the run recovers. seed >= 1.
FaultConfig faults_of_seed(std::uint64_t seed, const RunConfig& config);

/// The [faults] table as overrides ("faults.drop=0.01"), in front of which others may be put back
/// to 0 one by one, to find out which of them a failure takes.
std::vector<std::string> fault_overrides(const FaultConfig& faults);

}  // namespace covey::simulation
