#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "simulation/ranks/rank_transport.hpp"

/// Ranks over MPI as a module that the program loads when mpirun started it (dlopen): linked, MPI
/// would be a dependency of every `covey`, and its start-up a cost of every command.
namespace covey::mpi {

/// C++ crosses the boundary, so both sides must have been compiled alike. A module lies beside its
/// program; this finds one that was left behind by another build.
inline constexpr std::uint64_t kMpiModuleInterface =
    1 + 1000 * (sizeof(Result<std::vector<std::byte>>) + 1000 * sizeof(std::string));

/// What the module exports. Never unloaded: what MPI leaves behind lives as long as the process.
struct MpiModule {
  std::uint64_t interface = kMpiModuleInterface;  ///< first; compared before anything else is used
  /// Starts MPI in this process. Once.
  Result<std::unique_ptr<simulation::RankTransport>> (*join)() = nullptr;
};

inline constexpr char kMpiModuleSymbol[] = "covey_mpi_module";
using MpiModuleFunction = const MpiModule*();

}  // namespace covey::mpi
