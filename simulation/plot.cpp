#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/simulation/plot.hpp>
#include <iterator>

#include "plot_axes.hpp"

namespace covey::simulation {
namespace {

/// Widened to round figures: steps of 1, 2 or 5 times a power of ten, about `ticks` of them.
Range round_range(double low, double high, int ticks) {
  if (!(high > low)) {
    low -= 0.5;
    high += 0.5;
  }
  const double rough = (high - low) / ticks;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) {
      step = factor * power;
      break;
    }
  }
  return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, step};
}

/// A curve's y at x by linear interpolation; NaN outside of it.
double value_at(const Curve& curve, double x) {
  const auto& p = curve.points;
  if (p.empty() || x < p.front().first || x > p.back().first) return std::nan("");
  const auto right = std::lower_bound(
      p.begin(), p.end(), x, [](const auto& point, double at) { return point.first < at; });
  if (right == p.begin()) return right->second;
  const auto left = right - 1;
  const double share = (x - left->first) / (right->first - left->first);
  return left->second + share * (right->second - left->second);
}

/// At most this many points make up a mean: more cannot be told apart in a picture.
constexpr std::size_t kMeanPoints = 200;

/// Every x at which one of the runs has a point and all of them have a value, thinned out.
std::vector<double> common_places(const std::vector<Curve>& runs) {
  std::vector<double> places;
  for (const Curve& run : runs) {
    for (const auto& [x, y] : run.points) places.push_back(x);
  }
  std::ranges::sort(places);
  const auto again = std::ranges::unique(places);
  places.erase(again.begin(), again.end());
  std::erase_if(places, [&](double x) {
    return std::ranges::any_of(runs,
                               [x](const Curve& run) { return !std::isfinite(value_at(run, x)); });
  });
  if (places.size() <= kMeanPoints) return places;
  std::vector<double> thinned;
  for (std::size_t i = 0; i < kMeanPoints; ++i) {
    thinned.push_back(places[i * (places.size() - 1) / (kMeanPoints - 1)]);  // with first and last
  }
  return thinned;
}

}  // namespace

Ranges ranges_of(const Plot& plot, int x_ticks, int y_ticks) {
  bool any = false;
  double x0 = 0, x1 = 1, y0 = 0, y1 = 1;
  for (const Curve& curve : plot.curves) {
    for (std::size_t i = 0; i < curve.points.size(); ++i) {
      const auto [x, y] = curve.points[i];
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      if (!any) {
        x0 = x1 = x;
        y0 = y1 = y;
        any = true;
      }
      const double spread = curve.spread.empty() ? 0 : curve.spread[i];
      x0 = std::min(x0, x), x1 = std::max(x1, x);
      y0 = std::min(y0, y - spread), y1 = std::max(y1, y + spread);
    }
  }
  return {round_range(x0, x1, x_ticks), round_range(y0, y1, y_ticks)};
}

std::string figure(double value, double step) {
  if (step >= 1e6) return fmt::format("{:.3g}", value + 0.0);
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 6);
  return fmt::format("{:.{}f}", value + 0.0, decimals);
}

Curve mean_curve(const std::vector<Curve>& runs, std::string label) {
  Curve mean{std::move(label), {}};
  const auto count = static_cast<double>(runs.size());
  for (const double x : common_places(runs)) {
    double sum = 0, squares = 0;
    for (const Curve& run : runs) sum += value_at(run, x);
    for (const Curve& run : runs) squares += std::pow(value_at(run, x) - sum / count, 2);
    mean.points.emplace_back(x, sum / count);
    if (runs.size() > 1) mean.spread.push_back(std::sqrt(squares / (count - 1)));
  }
  return mean;
}

std::string draw_in_terminal(const Plot& plot, int columns, int rows) {
  static constexpr std::array<char, 6> kMarks = {'*', '+', 'o', 'x', '#', '@'};
  const Ranges ranges = ranges_of(plot, 6, std::max(2, rows / 4));
  constexpr int kMargin = 9;
  const int width = std::max(10, columns - kMargin - 1);
  std::vector<std::string> cells(static_cast<std::size_t>(rows),
                                 std::string(static_cast<std::size_t>(width), ' '));
  for (std::size_t c = 0; c < plot.curves.size(); ++c) {
    for (int column = 0; column < width; ++column) {
      const double x = ranges.x.low + (ranges.x.high - ranges.x.low) * column / (width - 1);
      const double y = value_at(plot.curves[c], x);
      if (!std::isfinite(y)) continue;
      const long row = std::lround((1 - ranges.y.share(y)) * (rows - 1));
      cells[static_cast<std::size_t>(std::clamp<long>(row, 0, rows - 1))]
           [static_cast<std::size_t>(column)] = kMarks[c % kMarks.size()];
    }
  }
  std::string text = fmt::format("  {}\n", plot.title);
  std::vector<std::string> labels(static_cast<std::size_t>(rows));
  for (double y = ranges.y.low; y <= ranges.y.high + ranges.y.step / 2; y += ranges.y.step) {
    const long row = std::lround((1 - ranges.y.share(y)) * (rows - 1));
    labels[static_cast<std::size_t>(std::clamp<long>(row, 0, rows - 1))] = figure(y, ranges.y.step);
  }
  for (std::size_t row = 0; row < cells.size(); ++row) {
    text += fmt::format("{:>{}} |{}\n", labels[row], kMargin - 2, cells[row]);
  }
  text += std::string(kMargin - 1, ' ') + '+' + std::string(static_cast<std::size_t>(width), '-') +
          '\n';
  const std::string left = figure(ranges.x.low, ranges.x.step);
  const std::string right = figure(ranges.x.high, ranges.x.step);
  text += fmt::format("{}{}{:^{}}{}\n", std::string(kMargin, ' '), left, plot.x_label,
                      std::max(1, width - static_cast<int>(left.size() + right.size())), right);
  if (plot.curves.size() > 1) {
    for (std::size_t c = 0; c < plot.curves.size(); ++c) {
      text += fmt::format("{}{} {}\n", std::string(kMargin, ' '), kMarks[c % kMarks.size()],
                          plot.curves[c].label);
    }
  }
  return text;
}

}  // namespace covey::simulation
