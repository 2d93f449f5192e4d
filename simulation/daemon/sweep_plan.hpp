#pragma once

#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "run_curves.hpp"

namespace covey {

/// The picture of a sweep: [plot].
struct SweepPlot {
  CurveAxes axes;     ///< plot.x, plot.y
  std::string title;  ///< plot.title; default: the sweep's name
  std::string
      group;  ///< plot.group: the key that names the curves, or "case"; "": all that differs
  std::string
      panel;  ///< plot.panel: the key (or "case") with a panel for each value; "": one panel
};

/// One setting of the sweep, run with every seed.
struct SweepCase {
  std::string name;                    ///< "prox, stragglers=0.9"
  std::string folder;                  ///< the name as a folder's: "prox_stragglers=0.9"
  std::string panel;                   ///< title of the panel it is drawn in; "" without panels
  std::string label;                   ///< of its curve; no other case of its panel has it
  std::vector<std::string> overrides;  ///< "strategy.proximal-mu=1", in the order they are applied
};

/// What a sweep file says: the product of [[case]] and [grid], each with every seed.
struct SweepPlan {
  std::string name;      ///< name; default: the file's, without .toml
  std::string run_file;  ///< run, found from the sweep file's folder
  std::vector<std::uint64_t> seeds;
  std::vector<SweepCase> cases;
  SweepPlot plot;

  /// The case with this seed as the run's configuration.
  Result<RunConfig> config_of(const SweepCase& sweep_case, std::uint64_t seed) const;
};

/// Reads a sweep file; `overrides` (--set) come on top of every case. Everything that any run would
/// be refused for is refused here, naming file, line and key.
Result<SweepPlan> load_sweep_file(const std::string& path,
                                  const std::vector<std::string>& overrides);

}  // namespace covey
