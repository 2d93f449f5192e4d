#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <covey/ids.hpp>
#include <covey/time.hpp>

namespace covey {

/// Per-device accuracy of one model over the devices' own test data (q-FFL, Li et al. 2020, Table 1).
struct FairnessFigures {
  std::uint32_t devices = 0;
  double average = 0;    ///< unweighted mean of accuracies, percent
  double worst10 = 0;    ///< mean of the worst 10% of devices, percent
  double best10 = 0;     ///< mean of the best 10%, percent
  double variance = 0;   ///< of accuracies in percent, population variance
};
/// How one committed (or abandoned) round went: a line of metrics.jsonl and a row of the store.
struct RoundMetrics {
  RoundNumber round{};
  bool committed = true;
  Time started{};
  Time ended{};
  std::uint32_t selected = 0;
  std::uint32_t accepted = 0;
  std::uint32_t rejected = 0;
  std::uint32_t dropped = 0;          ///< selected, but neither accepted nor rejected; of these:
  std::uint32_t declined = 0;         ///< gave the task up and said so
  std::uint32_t lost = 0;             ///< were not connected when the round ended
  std::uint32_t late = 0;             ///< were still at work when it ended
  std::uint64_t examples = 0;         ///< of accepted reports
  double train_loss = 0;              ///< of accepted reports, weighted by examples
  std::uint64_t train_steps = 0;
  std::uint64_t bytes_up = 0;         ///< payload of accepted and rejected updates, without frames and
  std::uint64_t bytes_down = 0;       ///< without what came too late (result.json counts all frames)
  std::optional<double> accuracy;     ///< on the test set, where this round was evaluated
  std::optional<double> loss;

  // Secure aggregation.
  bool secure = false;                  ///< the sum was made of masked updates
  std::uint32_t masked = 0;             ///< devices in the secure sum
  std::uint32_t recovered = 0;          ///< dropped after sharing keys; their masks were reconstructed
  std::uint64_t clipped_coordinates = 0;  ///< of accepted updates, outside secure-aggregation.clip
  std::uint32_t clipped_weights = 0;      ///< updates above secure-aggregation.max-weight
  /// Norm of what fixed-point rounding is expected to add to the sum, over the sum's own norm.
  std::optional<double> rounding_error;

  // Differential privacy.
  std::optional<double> epsilon;        ///< spent up to and with this round, at `delta`
  std::optional<double> delta;
  std::optional<double> clip_norm;      ///< S of this round
  std::optional<double> noise_multiplier;
  // Asynchronous aggregation.
  std::optional<double> staleness;      ///< mean over accepted updates: models made since theirs began

  // The simulator's own; a server cannot know them.
  std::optional<double> energy_j;       ///< what devices spent between the last round's end and this one's
  std::optional<double> wall_s;         ///< since the run began, on the machine that simulates
  std::optional<double> wasted_s;       ///< device time spent on work that no round counted
  std::optional<FairnessFigures> devices;  ///< over the devices' own test data, where evaluated

  /// Devices told nothing of themselves: examples, train_loss and train_steps are not known.
  bool private_figures = false;
};

/// accuracies: fractions in [0, 1], one per device. All figures are 0 without devices.
FairnessFigures fairness(std::vector<double> accuracies);

/// Rounds to a target as in McMahan et al. 2017: the running maximum of accuracy, linearly
/// interpolated between evaluated rounds; nothing if it is not reached.
std::optional<double> rounds_to_target(const std::vector<std::pair<double, double>>& round_accuracy,
                                       double target);

/// One line of metrics.jsonl, without the newline.
std::string to_json_line(const RoundMetrics& metrics);

/// metrics.csv, without newlines: the same figures in fixed columns, named as the keys of metrics.jsonl
/// ("devices.worst10" for the keys of its object); a cell is empty where the figure is absent.
std::string csv_header();
std::string to_csv_line(const RoundMetrics& metrics);

}  // namespace covey
