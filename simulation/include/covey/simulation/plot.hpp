#pragma once

#include <string>
#include <utility>
#include <vector>

#include <covey/result.hpp>

namespace covey::simulation {

struct Curve {
  std::string label;
  std::vector<std::pair<double, double>> points;  ///< (x, y), x ascending
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Curve> curves;
};

/// The plot in characters, `columns` wide, for a terminal: axes with figures, one mark per curve.
std::string draw_in_terminal(const Plot& plot, int columns = 76, int rows = 16);

/// Writes a picture; the path ends in .svg or .png.
Result<void> write_picture(const Plot& plot, const std::string& path);

}  // namespace covey::simulation
