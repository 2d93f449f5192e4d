#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <memory>
#include <string>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/metrics.hpp>
#include <covey/result.hpp>
#include <covey/simulation/experiment.hpp>
#include <covey/simulation/training_worker.hpp>
#include <covey/strategies/registry.hpp>

namespace covey::simulation {

struct SimulationOptions {
  unsigned threads = 1;                                       ///< including the caller's
  std::function<void(const RoundMetrics&)> on_round;          ///< after each round, on the caller's thread
  /// Each message of the server's, at the moment when it is sent.
  std::function<void(ClientId, const ServerMessage&)> on_sent = nullptr;
  const std::atomic<bool>* stop = nullptr;                    ///< ends the run after the event at hand
  /// Ends the run with an error where a secure sum, unmasked, is not the sum of what its devices put in.
  bool check_sums = false;
  /// Ends the run with an error where one of its invariants does not hold; where faults strike they are
  /// always checked, and secure sums as well.
  bool check_invariants = false;
  std::string replay;          ///< the command that repeats this run: told with a violation
  /// Where the run is written down as it goes, to go on after it was killed; "": nowhere. The folder exists.
  /// Runs with faults are not.
  std::string journal_folder;
  /// Goes on where the journal says; rounds until there are told to on_round again.
  bool resume = false;
  /// At least so long between two of the moments that a run can go on from. 0: every committed round.
  std::chrono::milliseconds snapshot_pause{1000};
  /// Workers beside the threads, made when the simulation begins and gone when it ends: other machines.
  std::function<std::vector<std::unique_ptr<TrainingWorker>>()> more_workers;
  std::string data_directory;  ///< where relative paths of traces are looked up first
};

/// What went wrong, by [faults].
struct FaultFigures {
  std::uint64_t lost = 0, late = 0, repeated = 0, overtaken = 0, damaged = 0;  ///< messages
  std::uint64_t cut = 0;  ///< connections, behind a message that arrived
  std::uint64_t device_crashes = 0, server_crashes = 0;
  std::uint64_t full_disks = 0;  ///< writes that failed
};

struct SimulationResult {
  bool finished = true;                   ///< false: stopped from outside
  std::string reason;                     ///< why it ended: "all 100 rounds are done", ...
  std::string guarantee;                  ///< with differential privacy: what epsilon is said of
  std::vector<RoundMetrics> rounds;       ///< committed and abandoned, in order
  std::uint32_t committed = 0;
  SharedBytes model;                      ///< fp32 parameters after the last committed round
  FairnessFigures fairness;               ///< of that model over the devices' own test data
  double virtual_s = 0;
  double wall_s = 0;                      ///< of the rounds, without loading data
  std::uint64_t train_steps = 0;          ///< of all devices, also those whose update did not count
  std::uint64_t bytes_up = 0;             ///< frames as they would be on the wire (without TLS records)
  std::uint64_t bytes_down = 0;
  FaultFigures faults;
  /// Share of test examples with the backdoor's trigger that the model takes for attack.target-label.
  std::optional<double> backdoor;
};

/// Runs an experiment in virtual time: the coordinator and participants that are deployed, over a
/// network of simulated links. The same seed gives the same model bits for any number of threads.
Result<SimulationResult> simulate(const Experiment& experiment, const strategies::Registry& registry,
                                  const SimulationOptions& options);

}  // namespace covey::simulation
