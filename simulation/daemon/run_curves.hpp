#pragma once

#include <covey/result.hpp>
#include <covey/simulation/plot.hpp>
#include <string>
#include <vector>

namespace covey {

/// What a plot of runs shows.
struct CurveAxes {
  std::string x = "round";  ///< round | hours | bytes | updates | wall | energy
  std::string y =
      "accuracy";  ///< those, any key of metrics.jsonl, or one of `devices` (worst10, ...)
};

/// Refuses names that no line of metrics has, listing those there are.
Result<void> check_axes(const CurveAxes& axes);

/// What stands at an axis: "virtual time (h)", "test accuracy (%)".
std::string axis_label(const std::string& name);

/// The curve of the run in this folder, of its committed rounds, without a label. No points where
/// no round told y. A last line that is still being written is left out.
Result<simulation::Curve> read_curve(const std::string& folder, const CurveAxes& axes);

/// What runs have in common that differ in nothing but the seed (and their name): their resolved
/// run file without these two.
Result<std::string> settings_of_run(const std::string& folder);

}  // namespace covey
