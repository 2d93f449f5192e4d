#include "simulation/daemon/simulation_ranks.hpp"

#include <covey/models/network.hpp>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "simulation/daemon/command_line.hpp"
#include "simulation/local_worker.hpp"
#include "simulation/ranks/experiment_fingerprint.hpp"
#include "simulation/ranks/training_rank.hpp"

namespace covey {

Result<SimulationRanks> SimulationRanks::join() {
  SimulationRanks ranks;
  ranks.launch_ = mpi_launch();
  if (!ranks.launch_) return ranks;
  auto transport = join_ranks(*ranks.launch_);
  if (!transport.ok()) {
    // One rank of each machine tells; the others have nothing to add.
    if (ranks.launch_->local_rank > 0) return ranks;
    return transport.error();
  }
  ranks.transport_ = std::move(*transport);
  if (ranks.trains_for_rank_0()) return ranks;
  simulation::LeadingRank::Options options;
  options.stop = &stop_on_signal();
  options.on_lost = [advice = ranks.advice_](const std::string& what) {
    const std::lock_guard lock(advice->mutex);
    std::fprintf(stderr, "covey: %s; the others do its work%s\n", what.c_str(),
                 advice->text.c_str());
  };
  ranks.leading_ = std::make_unique<simulation::LeadingRank>(*ranks.transport_, std::move(options));
  return ranks;
}

int SimulationRanks::train(const std::function<Result<LoadedRun>()>& load, unsigned threads) {
  if (!transport_) return kExitDone;
  simulation::TrainingRankOptions options;
  options.stop = &stop_on_signal();
  options.hello.kernels = models::kernel_instruction_set();
  std::vector<std::unique_ptr<simulation::TrainingWorker>> workers;
  const auto run = load();
  if (run.ok()) {
    options.hello.experiment = simulation::fingerprint(run->experiment);
    const auto secrets = simulation::training_secrets(run->config.seed);
    for (unsigned i = 0; i < threads; ++i) {
      workers.push_back(
          std::make_unique<simulation::LocalWorker>(run->experiment, run->registry, secrets));
    }
  } else {
    options.hello.problem = run.error().message;
  }
  if (simulation::serve_training(*transport_, std::move(options), std::move(workers))) {
    return kExitDone;
  }
  // MPI was not wound up, since not all ranks were there, and what it would do at exit may wait for
  // them.
  std::_Exit(kExitDone);
}

Result<void> SimulationRanks::gather(const simulation::Experiment& experiment,
                                     simulation::SimulationOptions& options) {
  if (!leading_) return {};
  if (options.threads > usable_processors()) {
    std::fprintf(
        stderr,
        "covey: mpirun lets this rank use %u processor(s), which its %u threads will share; "
        "mpirun --bind-to none takes no processor away\n",
        usable_processors(), options.threads);
  }
  COVEY_TRY(
      leading_->gather(simulation::fingerprint(experiment), models::kernel_instruction_set()));
  options.more_workers = [ranks = leading_.get()] { return ranks->workers(); };
  return {};
}

void SimulationRanks::advise(std::string what_to_do) const {
  const std::lock_guard lock(advice_->mutex);
  advice_->text = std::move(what_to_do);
}

}  // namespace covey
