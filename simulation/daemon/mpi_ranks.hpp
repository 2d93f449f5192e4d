#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "simulation/ranks/rank_transport.hpp"

namespace covey {

/// How mpirun started this process, from the variables that it sets.
struct MpiLaunch {
  std::uint32_t rank = 0;
  std::uint32_t size = 1;
  std::uint32_t local_rank = 0;  ///< on this machine
  std::uint32_t local_size = 1;
};
/// Nothing: not started by mpirun, or alone.
std::optional<MpiLaunch> mpi_launch();

/// Whether this process is a rank that only trains for rank 0, which does all the talking.
bool trains_for_rank_0(std::string_view command);

/// Starts MPI. Error, as for one who wonders why: there is no module, it does not fit, or mpirun
/// belongs to another MPI.
Result<std::unique_ptr<simulation::RankTransport>> join_ranks(const MpiLaunch& launch);

/// Processors that this process may use, which mpirun may have made few.
unsigned usable_processors();
/// One for each processor that is left to this rank on its machine.
unsigned default_threads(const std::optional<MpiLaunch>& launch);

}  // namespace covey
