#pragma once

#include <covey/result.hpp>
#include <covey/simulation/experiment.hpp>
#include <covey/simulation/simulate.hpp>
#include <covey/strategies/registry.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "simulation/daemon/mpi_ranks.hpp"
#include "simulation/ranks/leading_rank.hpp"

namespace covey {

/// A run as every rank loads it.
struct LoadedRun {
  RunConfig config;
  strategies::Registry registry;
  simulation::Experiment experiment;
};

/// The processes of one `covey simulate`: one alone, or as many as mpirun started. Rank 0 runs the
/// fleet and does all the talking; the others train for it, print nothing and write nothing.
class SimulationRanks {
 public:
  static Result<SimulationRanks> join();

  bool trains_for_rank_0() const { return launch_ && launch_->rank > 0; }
  /// All that such a rank does; ends when rank 0 does. The exit code.
  int train(const std::function<Result<LoadedRun>()>& load, unsigned threads);

  /// Rank 0: waits until all ranks have loaded the same, and adds their workers to the options.
  /// They must end, with the simulation, before this object.
  Result<void> gather(const simulation::Experiment& experiment,
                      simulation::SimulationOptions& options);
  /// What is told with the loss of a rank, which may be the last thing that this process can say.
  void advise(std::string what_to_do) const;

  unsigned default_threads() const { return covey::default_threads(launch_); }

 private:
  std::optional<MpiLaunch> launch_;  ///< none: alone
  struct Advice {
    std::mutex mutex;
    std::string text;
  };
  std::shared_ptr<Advice> advice_ = std::make_shared<Advice>();
  std::unique_ptr<simulation::RankTransport> transport_;
  std::unique_ptr<simulation::LeadingRank> leading_;
};

}  // namespace covey
