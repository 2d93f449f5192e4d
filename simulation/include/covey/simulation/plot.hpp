#pragma once

#include <string>
#include <utility>
#include <vector>

#include <covey/result.hpp>

namespace covey::simulation {

struct Curve {
  std::string label;
  std::vector<std::pair<double, double>> points;  ///< (x, y), x ascending
  std::vector<double> spread = {};  ///< half the height of a band around each point; empty: no band
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Curve> curves;
};

/// The mean of several runs' curves, where all of them have values, in a band of one standard deviation
/// (of the sample, n - 1) to either side; a single run has no band. Runs whose points lie at different x
/// are interpolated.
Curve mean_curve(const std::vector<Curve>& runs, std::string label);

/// The plot in characters, `columns` wide, for a terminal: axes with figures, one mark per curve, no bands.
std::string draw_in_terminal(const Plot& plot, int columns = 76, int rows = 16);

/// Writes a picture; the path ends in .svg or .png.
Result<void> write_picture(const Plot& plot, const std::string& path);
/// Several plots side by side, each under its own title, with one legend (the n-th curve of every plot has
/// the same colour) and one range of y.
Result<void> write_picture(const std::vector<Plot>& panels, const std::string& title,
                           const std::string& path);

}  // namespace covey::simulation
