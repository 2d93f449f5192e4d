#include <cairo-svg.h>
#include <cairo.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/simulation/plot.hpp>
#include <memory>

#include "plot_axes.hpp"

namespace covey::simulation {
namespace {

// Points of the picture. One plot stands alone and large; panels are smaller, three in a row.
constexpr double kSingleWidth = 640, kSingleHeight = 320;
constexpr double kPanelWidth = 300, kPanelHeight = 250;
constexpr std::size_t kPanelsInARow = 3;
constexpr double kLeft = 64, kRight = 20, kBelow = 48, kGap = 32;
constexpr double kTitle = 44;       ///< room above everything
constexpr double kPanelTitle = 22;  ///< room above each of several panels
constexpr double kLegendLine = 18, kLegendMark = 22, kLegendGap = 18;

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

/// Where a plot's axes stand, and what they span.
struct Frame {
  double x = 0, y = 0, width = 0, height = 0;
  Ranges ranges;
  bool leftmost = true;  ///< the figures of y stand beside it

  double at_x(double value) const { return x + width * ranges.x.share(value); }
  double at_y(double value) const { return y + height * (1 - ranges.y.share(value)); }
};

double width_of(cairo_t* c, const std::string& text) {
  cairo_text_extents_t extents;
  cairo_text_extents(c, text.c_str(), &extents);
  return extents.x_advance;
}

/// align: 0 begins at x, 0.5 is centred there, 1 ends there.
void text_at(cairo_t* c, const std::string& text, double x, double y, double align) {
  cairo_move_to(c, x - align * width_of(c, text), y);
  cairo_show_text(c, text.c_str());
}

void line_to(cairo_t* c, double x, double y, double along_x, double along_y, double grey) {
  cairo_set_source_rgb(c, grey, grey, grey);
  cairo_move_to(c, x, y);
  cairo_rel_line_to(c, along_x, along_y);
  cairo_stroke(c);
  cairo_set_source_rgb(c, .2, .2, .2);
}

void draw_axes(cairo_t* c, const Plot& plot, const Frame& frame) {
  const Range &x_range = frame.ranges.x, &y_range = frame.ranges.y;
  cairo_set_font_size(c, 12);
  cairo_set_line_width(c, 1);
  for (double y = y_range.low; y <= y_range.high + y_range.step / 2; y += y_range.step) {
    line_to(c, frame.x, frame.at_y(y), frame.width, 0, .88);
    if (frame.leftmost) {
      text_at(c, figure(y, y_range.step), frame.x - 8, frame.at_y(y) + 4, 1);
    }
  }
  for (double x = x_range.low; x <= x_range.high + x_range.step / 2; x += x_range.step) {
    line_to(c, frame.at_x(x), frame.y, 0, frame.height, .93);
    text_at(c, figure(x, x_range.step), frame.at_x(x), frame.y + frame.height + 18, .5);
  }
  text_at(c, plot.x_label, frame.x + frame.width / 2, frame.y + frame.height + 38, .5);
  if (!frame.leftmost) return;
  cairo_save(c);
  cairo_translate(c, 16, frame.y + frame.height / 2);
  cairo_rotate(c, -std::acos(-1.0) / 2);
  text_at(c, plot.y_label, 0, 0, .5);
  cairo_restore(c);
}

/// The n-th curve's colour and, once the colours are used up, dashes.
void set_style(cairo_t* c, std::size_t n, double alpha) {
  const Colour colour = kColours[n % kColours.size()];
  cairo_set_source_rgba(c, colour.red, colour.green, colour.blue, alpha);
  const double dash = 3.0 * static_cast<double>(n / kColours.size());
  cairo_set_dash(c, &dash, dash > 0 ? 1 : 0, 0);
}

std::vector<std::size_t> finite_points(const Curve& curve) {
  std::vector<std::size_t> finite;
  for (std::size_t i = 0; i < curve.points.size(); ++i) {
    const auto [x, y] = curve.points[i];
    if (std::isfinite(x) && std::isfinite(y)) finite.push_back(i);
  }
  return finite;
}

void draw_band(cairo_t* c, const Curve& curve, const Frame& frame) {
  const auto finite = finite_points(curve);
  cairo_new_path(c);  // text leaves a point behind, from which a line would begin
  const auto edge = [&](std::size_t i, double side) {
    const auto [x, y] = curve.points[i];
    cairo_line_to(c, frame.at_x(x), frame.at_y(y + side * curve.spread[i]));
  };
  for (const std::size_t i : finite) edge(i, 1);
  for (auto i = finite.rbegin(); i != finite.rend(); ++i) edge(*i, -1);
  cairo_close_path(c);
  cairo_fill(c);
}

void draw_curve(cairo_t* c, const Curve& curve, const Frame& frame) {
  const auto finite = finite_points(curve);
  cairo_new_path(c);
  for (const std::size_t i : finite) {
    cairo_line_to(c, frame.at_x(curve.points[i].first), frame.at_y(curve.points[i].second));
  }
  if (finite.size() == 1) cairo_rel_line_to(c, 3, 0);  // a single point would leave no mark
  cairo_stroke(c);
}

void draw_plot(cairo_t* c, const Plot& plot, const Frame& frame) {
  draw_axes(c, plot, frame);
  cairo_set_line_width(c, 2);
  cairo_set_line_join(c, CAIRO_LINE_JOIN_ROUND);
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    if (plot.curves[i].spread.empty()) continue;
    set_style(c, i, .18);
    draw_band(c, plot.curves[i], frame);
  }
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    set_style(c, i, 1);
    draw_curve(c, plot.curves[i], frame);
  }
  cairo_set_dash(c, nullptr, 0, 0);
}

/// The labels in rows under the plots, `width` wide; returns how many rows. Draws nothing without
/// `draw`.
int legend(cairo_t* c, const Plot& plot, const Frame& place, bool draw) {
  if (plot.curves.size() < 2) return 0;
  cairo_set_font_size(c, 12);
  double x = place.x;
  int rows = 1;
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    const double wide = kLegendMark + width_of(c, plot.curves[i].label) + kLegendGap;
    if (x > place.x && x + wide > place.x + place.width) {
      x = place.x;
      ++rows;
    }
    const double y = place.y + kLegendLine * rows;
    if (draw) {
      set_style(c, i, 1);
      cairo_set_line_width(c, 3);
      cairo_move_to(c, x, y - 4);
      cairo_rel_line_to(c, kLegendMark - 6, 0);
      cairo_stroke(c);
      cairo_set_source_rgb(c, .2, .2, .2);
      text_at(c, plot.curves[i].label, x + kLegendMark, y, 0);
    }
    x += wide;
  }
  cairo_set_dash(c, nullptr, 0, 0);
  return rows;
}

struct FreeSurface {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
};
struct FreeContext {
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};

/// Plots in rows, the same range of y for all of them, the legend under them.
struct Layout {
  std::vector<Frame> frames;
  Frame legend;
  double width = 0, height = 0;
};

Layout layout_of(const std::vector<Plot>& panels) {
  const bool single = panels.size() == 1;
  const double width = single ? kSingleWidth : kPanelWidth;
  const double height = single ? kSingleHeight : kPanelHeight;
  const double above = single ? 0 : kPanelTitle;
  const std::size_t columns = std::min(panels.size(), kPanelsInARow);
  Plot all;  // for the common range
  for (const Plot& panel : panels) {
    all.curves.insert(all.curves.end(), panel.curves.begin(), panel.curves.end());
  }
  Layout layout;
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const std::size_t column = i % columns, row = i / columns;
    Frame frame;
    frame.x = kLeft + static_cast<double>(column) * (width + kGap);
    frame.y = kTitle + above + static_cast<double>(row) * (height + kBelow + above);
    frame.width = width;
    frame.height = height;
    frame.ranges = ranges_of(panels[i], single ? 8 : 5, 6);
    frame.ranges.y = ranges_of(all, 8, 6).y;
    frame.leftmost = column == 0;
    layout.frames.push_back(frame);
  }
  const Frame& last = layout.frames.back();
  layout.width = kLeft + static_cast<double>(columns) * (width + kGap) - kGap + kRight;
  layout.height = last.y + last.height + kBelow;
  layout.legend.x = kLeft;
  layout.legend.y = layout.height;
  layout.legend.width = layout.width - kLeft;
  return layout;
}

/// How high the legend is, known only once its labels are measured.
double legend_height(const Plot& plot, const Frame& place) {
  const std::unique_ptr<cairo_surface_t, FreeSurface> surface(
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1));
  const std::unique_ptr<cairo_t, FreeContext> context(cairo_create(surface.get()));
  cairo_select_font_face(context.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                         CAIRO_FONT_WEIGHT_NORMAL);
  const int rows = legend(context.get(), plot, place, false);
  return rows > 0 ? kLegendLine * rows + 14 : 0;
}

void draw_all(cairo_t* c, const std::vector<Plot>& panels, const std::string& title,
              const Layout& layout) {
  cairo_select_font_face(c, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_source_rgb(c, 1, 1, 1);
  cairo_paint(c);
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const Frame& frame = layout.frames[i];
    draw_plot(c, panels[i], frame);
    cairo_set_source_rgb(c, .2, .2, .2);
    cairo_set_font_size(c, 13);
    if (panels.size() > 1) {
      text_at(c, panels[i].title, frame.x + frame.width / 2, frame.y - 8, .5);
    }
  }
  cairo_set_font_size(c, 15);
  text_at(c, title, kLeft, 26, 0);
  legend(c, panels.front(), layout.legend, true);
}

}  // namespace

Result<void> write_picture(const std::vector<Plot>& panels, const std::string& title,
                           const std::string& path) {
  const bool svg = path.ends_with(".svg");
  if (!svg && !path.ends_with(".png")) {
    return invalid_argument(path + ": a picture's name ends in .svg or .png");
  }
  if (panels.empty()) return invalid_argument(path + ": there is nothing to draw");
  const Layout layout = layout_of(panels);
  const double height = layout.height + legend_height(panels.front(), layout.legend);
  constexpr double kScale = 2;  // of PNG pixels, for sharp text
  const std::unique_ptr<cairo_surface_t, FreeSurface> surface(
      svg ? cairo_svg_surface_create(path.c_str(), layout.width, height)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24,
                                       static_cast<int>(std::ceil(layout.width * kScale)),
                                       static_cast<int>(std::ceil(height * kScale))));
  const std::unique_ptr<cairo_t, FreeContext> context(cairo_create(surface.get()));
  if (!svg) cairo_scale(context.get(), kScale, kScale);
  draw_all(context.get(), panels, title, layout);
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

Result<void> write_picture(const Plot& plot, const std::string& path) {
  return write_picture({plot}, plot.title, path);
}

}  // namespace covey::simulation
