#include <covey/simulation/plot.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include <cairo-svg.h>
#include <cairo.h>
#include <fmt/format.h>

namespace covey::simulation {
namespace {

struct Range {
  double low = 0;
  double high = 1;
  double step = 0.2;  ///< between figures on the axis

  double share(double value) const { return (value - low) / (high - low); }
};

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

struct Ranges {
  Range x, y;
};

Ranges ranges_of(const Plot& plot, int x_ticks, int y_ticks) {
  bool any = false;
  double x0 = 0, x1 = 1, y0 = 0, y1 = 1;
  for (const Curve& curve : plot.curves) {
    for (const auto& [x, y] : curve.points) {
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      if (!any) {
        x0 = x1 = x;
        y0 = y1 = y;
        any = true;
      }
      x0 = std::min(x0, x), x1 = std::max(x1, x);
      y0 = std::min(y0, y), y1 = std::max(y1, y);
    }
  }
  return {round_range(x0, x1, x_ticks), round_range(y0, y1, y_ticks)};
}

/// A curve's y at x by linear interpolation; NaN outside of it.
double value_at(const Curve& curve, double x) {
  const auto& p = curve.points;
  if (p.empty() || x < p.front().first || x > p.back().first) return std::nan("");
  const auto right = std::lower_bound(p.begin(), p.end(), x,
                                      [](const auto& point, double at) { return point.first < at; });
  if (right == p.begin()) return right->second;
  const auto left = right - 1;
  const double share = (x - left->first) / (right->first - left->first);
  return left->second + share * (right->second - left->second);
}

std::string figure(double value, double step) {
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 6);
  return fmt::format("{:.{}f}", value + 0.0, decimals);
}

}  // namespace

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
  text += std::string(kMargin - 1, ' ') + '+' + std::string(static_cast<std::size_t>(width), '-') + '\n';
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

namespace {

constexpr double kWidth = 720, kHeight = 420;                     // of the picture, points
constexpr double kLeft = 64, kRight = 20, kTop = 44, kBottom = 56;  // margins

struct Colour {
  double red, green, blue;
};
// Okabe and Ito 2008: told apart also with colour-vision deficiency.
constexpr std::array<Colour, 7> kColours = {{{0, .447, .698},
                                             {.835, .369, 0},
                                             {0, .620, .451},
                                             {.800, .475, .655},
                                             {.902, .624, 0},
                                             {.337, .706, .914},
                                             {0, 0, 0}}};

void text_at(cairo_t* c, const std::string& text, double x, double y, double align) {
  cairo_text_extents_t extents;
  cairo_text_extents(c, text.c_str(), &extents);
  cairo_move_to(c, x - align * extents.x_advance, y);
  cairo_show_text(c, text.c_str());
}

void draw_axes(cairo_t* c, const Plot& plot, const Ranges& ranges) {
  const double width = kWidth - kLeft - kRight, height = kHeight - kTop - kBottom;
  cairo_set_font_size(c, 12);
  cairo_set_line_width(c, 1);
  for (double y = ranges.y.low; y <= ranges.y.high + ranges.y.step / 2; y += ranges.y.step) {
    const double at = kTop + height * (1 - ranges.y.share(y));
    cairo_set_source_rgb(c, .88, .88, .88);
    cairo_move_to(c, kLeft, at);
    cairo_rel_line_to(c, width, 0);
    cairo_stroke(c);
    cairo_set_source_rgb(c, .2, .2, .2);
    text_at(c, figure(y, ranges.y.step), kLeft - 8, at + 4, 1);
  }
  for (double x = ranges.x.low; x <= ranges.x.high + ranges.x.step / 2; x += ranges.x.step) {
    const double at = kLeft + width * ranges.x.share(x);
    cairo_set_source_rgb(c, .93, .93, .93);
    cairo_move_to(c, at, kTop);
    cairo_rel_line_to(c, 0, height);
    cairo_stroke(c);
    cairo_set_source_rgb(c, .2, .2, .2);
    text_at(c, figure(x, ranges.x.step), at, kHeight - kBottom + 18, .5);
  }
  text_at(c, plot.x_label, kLeft + width / 2, kHeight - 14, .5);
  cairo_save(c);
  cairo_translate(c, 16, kTop + height / 2);
  cairo_rotate(c, -std::acos(-1.0) / 2);
  text_at(c, plot.y_label, 0, 0, .5);
  cairo_restore(c);
  cairo_set_font_size(c, 15);
  text_at(c, plot.title, kLeft, 26, 0);
}

void draw_curves(cairo_t* c, const Plot& plot, const Ranges& ranges) {
  const double width = kWidth - kLeft - kRight, height = kHeight - kTop - kBottom;
  cairo_set_font_size(c, 12);
  cairo_set_line_width(c, 2);
  cairo_set_line_join(c, CAIRO_LINE_JOIN_ROUND);
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    const Colour colour = kColours[i % kColours.size()];
    cairo_set_source_rgb(c, colour.red, colour.green, colour.blue);
    bool open = false;
    for (const auto& [x, y] : plot.curves[i].points) {
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      const double px = kLeft + width * ranges.x.share(x);
      const double py = kTop + height * (1 - ranges.y.share(y));
      if (open) {
        cairo_line_to(c, px, py);
      } else {
        cairo_move_to(c, px, py);
      }
      open = true;
    }
    cairo_stroke(c);
    if (plot.curves.size() > 1) {
      const double at = kHeight - kBottom - 14 - 16 * static_cast<double>(plot.curves.size() - 1 - i);
      text_at(c, plot.curves[i].label, kWidth - kRight - 8, at, 1);
    }
  }
}

struct FreeSurface {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
};
struct FreeContext {
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};

}  // namespace

Result<void> write_picture(const Plot& plot, const std::string& path) {
  const bool svg = path.ends_with(".svg");
  if (!svg && !path.ends_with(".png")) {
    return invalid_argument(path + ": a picture's name ends in .svg or .png");
  }
  constexpr double kScale = 2;  // of PNG pixels, for sharp text
  const std::unique_ptr<cairo_surface_t, FreeSurface> surface(
      svg ? cairo_svg_surface_create(path.c_str(), kWidth, kHeight)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(kWidth * kScale),
                                       static_cast<int>(kHeight * kScale)));
  const std::unique_ptr<cairo_t, FreeContext> context(cairo_create(surface.get()));
  cairo_t* c = context.get();
  if (!svg) cairo_scale(c, kScale, kScale);
  cairo_select_font_face(c, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_source_rgb(c, 1, 1, 1);
  cairo_paint(c);
  const Ranges ranges = ranges_of(plot, 8, 6);
  draw_axes(c, plot, ranges);
  draw_curves(c, plot, ranges);
  cairo_status_t status = CAIRO_STATUS_SUCCESS;
  if (svg) {
    cairo_surface_finish(surface.get());
    status = cairo_surface_status(surface.get());
  } else {
    status = cairo_surface_write_to_png(surface.get(), path.c_str());
  }
  if (status != CAIRO_STATUS_SUCCESS) {
    return failed("cannot write " + path + ": " + cairo_status_to_string(status));
  }
  return {};
}

}  // namespace covey::simulation
