#include <cairo-svg.h>
#include <cairo.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "fleet_day.hpp"

namespace covey::simulation {
namespace {

// Points, from the left and the top.
constexpr double kWidth = 860;
constexpr double kLeft = 92, kRight = 24, kTop = 56;
constexpr double kRowHeight = 6, kRowGap = 1, kClassGap = 6;
constexpr double kBetween = 26, kSharesHeight = 130, kBottom = 52;

struct Colour {
  double red, green, blue;
};
// Two tones of one blue, told apart in grey too; the background of a row shows that it is one.
constexpr Colour kOnline = {.60, .78, .91}, kCharging = {0, .31, .53}, kAway = {.955, .955, .955};
constexpr Colour kText = {.2, .2, .2}, kGrid = {.86, .86, .86};

void use(cairo_t* c, Colour colour) {
  cairo_set_source_rgb(c, colour.red, colour.green, colour.blue);
}

/// `align` 0: begins at x, 1: ends there.
void text_at(cairo_t* c, const std::string& text, double x, double y, double align) {
  cairo_text_extents_t extents;
  cairo_text_extents(c, text.c_str(), &extents);
  cairo_move_to(c, x - align * extents.x_advance, y);
  cairo_show_text(c, text.c_str());
}

/// Draws one day on one surface. One use, one thread.
class FleetDrawing {
 public:
  FleetDrawing(cairo_t* context, const FleetDay& day, const DeviceModels& models)
      : c_(context), day_(day), models_(models) {}

  static double height(const FleetDay& day, const DeviceModels& models) {
    return kTop + static_cast<double>(day.rows.size()) * kRowHeight +
           static_cast<double>(models.classes().size()) * kClassGap + kBetween + kSharesHeight +
           kBottom;
  }

  void draw(const std::string& title, double start_hour) {
    use(c_, {1, 1, 1});
    cairo_paint(c_);
    cairo_select_font_face(c_, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    use(c_, kText);
    cairo_set_font_size(c_, 15);
    text_at(c_, title, kLeft, 24, 0);
    cairo_set_font_size(c_, 11);
    draw_legend();
    const double rows_end = draw_rows();
    draw_shares(rows_end + kBetween);
    draw_hours(rows_end + kBetween + kSharesHeight, start_hour);
  }

 private:
  double x_of(Time at) const {
    return kLeft +
           (kWidth - kLeft - kRight) * seconds(at.time_since_epoch()) / seconds(day_.length);
  }

  void draw_legend() {
    double x = kLeft;
    for (const auto& [colour, label] : {std::pair(kCharging, "online, charging and unmetered"),
                                        std::pair(kOnline, "online"), std::pair(kAway, "away")}) {
      use(c_, colour);
      cairo_rectangle(c_, x, 34, 14, 8);
      cairo_fill(c_);
      use(c_, kText);
      text_at(c_, label, x + 19, 42, 0);
      x += label == std::string("online") ? 80 : 210;
    }
  }

  void draw_row(const FleetDay::Row& row, double y) {
    const double tall = kRowHeight - kRowGap;
    use(c_, kAway);
    cairo_rectangle(c_, kLeft, y, kWidth - kLeft - kRight, tall);
    cairo_fill(c_);
    for (const FleetDay::Stretch& stretch : row.online) {
      use(c_, stretch.charging ? kCharging : kOnline);
      cairo_rectangle(c_, x_of(stretch.begins), y, x_of(stretch.ends) - x_of(stretch.begins), tall);
      cairo_fill(c_);
    }
  }

  /// Returns where the rows end.
  double draw_rows() {
    double y = kTop;
    for (std::size_t i = 0; i < day_.rows.size();) {
      const std::uint32_t device_class = day_.rows[i].device_class;
      const double first = y;
      for (; i < day_.rows.size() && day_.rows[i].device_class == device_class; ++i) {
        draw_row(day_.rows[i], y);
        y += kRowHeight;
      }
      use(c_, kText);
      const std::string name(models_.class_name(device_class));
      text_at(c_, name.empty() ? "devices" : name, kLeft - 8, (first + y) / 2 + 3, 1);
      y += kClassGap;
    }
    return y;
  }

  void fill_share(const std::vector<double>& share, double bottom, Colour colour) {
    use(c_, colour);
    cairo_move_to(c_, kLeft, bottom);
    double x = kLeft;
    for (std::size_t i = 0; i < share.size(); ++i) {
      x = x_of(Time(static_cast<std::int64_t>(i) * day_.step));
      cairo_line_to(c_, x, bottom - kSharesHeight * share[i]);
    }
    cairo_line_to(c_, x, bottom);
    cairo_close_path(c_);
    cairo_fill(c_);
  }

  void draw_shares(double top) {
    const double bottom = top + kSharesHeight;
    fill_share(day_.online, bottom, kOnline);
    fill_share(day_.charging, bottom, kCharging);
    cairo_set_line_width(c_, 1);
    for (int percent = 0; percent <= 100; percent += 25) {
      const double y = bottom - kSharesHeight * percent / 100;
      cairo_set_source_rgba(c_, kGrid.red, kGrid.green, kGrid.blue, .7);
      cairo_move_to(c_, kLeft, y);
      cairo_line_to(c_, kWidth - kRight, y);
      cairo_stroke(c_);
      use(c_, kText);
      text_at(c_, fmt::format("{}%", percent), kLeft - 8, y + 4, 1);
    }
  }

  /// Hours of the clock, so that a second day goes on behind 24.
  void draw_hours(double bottom, double start_hour) {
    const double length = seconds(day_.length) / 3600;
    double step = 1;  // of figures, hours: about a dozen of them, at times that clocks know
    for (const double wider : {2.0, 3.0, 6.0, 12.0, 24.0}) {
      if (length / step > 13) step = wider;
    }
    while (length / step > 13) step += 24;
    for (double hour = std::ceil(start_hour / step) * step; hour <= start_hour + length;
         hour += step) {
      const double x = kLeft + (kWidth - kLeft - kRight) * (hour - start_hour) / length;
      use(c_, kText);
      text_at(c_, fmt::format("{:g}", hour), x, bottom + 18, .5);
      cairo_set_source_rgba(c_, 0, 0, 0, .08);
      cairo_move_to(c_, x, kTop);
      cairo_line_to(c_, x, bottom);
      cairo_stroke(c_);
    }
    use(c_, kText);
    text_at(c_, "hours since midnight, coordinated time", (kLeft + kWidth - kRight) / 2,
            bottom + 38, .5);
  }

  cairo_t* c_;
  const FleetDay& day_;
  const DeviceModels& models_;
};

struct FreeSurface {
  void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
};
struct FreeContext {
  void operator()(cairo_t* context) const { cairo_destroy(context); }
};

}  // namespace

Result<void> write_fleet_picture(const FleetDay& day, const DeviceModels& models,
                                 const std::string& title, double start_hour,
                                 const std::string& path) {
  const bool svg = path.ends_with(".svg");
  if (!svg && !path.ends_with(".png")) {
    return invalid_argument(path + ": a picture's name ends in .svg or .png");
  }
  constexpr double kScale = 2;  // of PNG pixels, for sharp text
  const double height = FleetDrawing::height(day, models);
  const std::unique_ptr<cairo_surface_t, FreeSurface> surface(
      svg ? cairo_svg_surface_create(path.c_str(), kWidth, height)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24, static_cast<int>(kWidth * kScale),
                                       static_cast<int>(std::ceil(height * kScale))));
  const std::unique_ptr<cairo_t, FreeContext> context(cairo_create(surface.get()));
  if (!svg) cairo_scale(context.get(), kScale, kScale);
  FleetDrawing(context.get(), day, models).draw(title, start_hour);
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
