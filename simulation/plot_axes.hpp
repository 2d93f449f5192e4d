#pragma once

#include <covey/simulation/plot.hpp>
#include <string>

namespace covey::simulation {

/// What an axis spans, in round figures.
struct Range {
  double low = 0;
  double high = 1;
  double step = 0.2;  ///< between figures on the axis

  double share(double value) const { return (value - low) / (high - low); }
};

struct Ranges {
  Range x, y;
};

/// All points and bands of the plot, about so many figures on each axis.
Ranges ranges_of(const Plot& plot, int x_ticks, int y_ticks);

/// A number on an axis with figures `step` apart.
std::string figure(double value, double step);

}  // namespace covey::simulation
