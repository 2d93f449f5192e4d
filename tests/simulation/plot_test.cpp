#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/simulation/plot.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

using namespace covey::simulation;

namespace {

const Plot kPlot{"rising", "round", "accuracy (%)", {{"a", {{1, 10}, {50, 60}, {100, 90}}}}};

std::string file_content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("a rising curve rises in the terminal") {
  const std::string text = draw_in_terminal(kPlot, 60, 10);
  std::istringstream lines(text);
  std::string line;
  std::vector<std::size_t> first_mark;
  while (std::getline(lines, line)) {
    const auto bar = line.find('|');
    if (bar == std::string::npos) continue;
    const auto mark = line.find('*', bar);
    if (mark != std::string::npos) first_mark.push_back(mark);
  }
  REQUIRE(first_mark.size() >= 5);
  CHECK(std::is_sorted(first_mark.rbegin(), first_mark.rend()));  // higher rows begin further right
  CHECK(text.find("round") != std::string::npos);
}

TEST_CASE("pictures are written as SVG and PNG, other names refused") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("covey-plot-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  REQUIRE(write_picture(kPlot, folder / "a.svg").ok());
  CHECK(file_content(folder / "a.svg").find("<svg") != std::string::npos);
  REQUIRE(write_picture(kPlot, folder / "a.png").ok());
  CHECK(file_content(folder / "a.png").substr(1, 3) == "PNG");
  CHECK_FALSE(write_picture(kPlot, folder / "a.gif").ok());
  CHECK_FALSE(write_picture(kPlot, folder / "absent" / "a.png").ok());
  std::filesystem::remove_all(folder);
}

TEST_CASE("curves with nothing, one point or not-a-number draw without harm") {
  CHECK_FALSE(draw_in_terminal({"t", "x", "y", {}}).empty());
  CHECK_FALSE(draw_in_terminal({"t", "x", "y", {{"one", {{1, 5}}}}}).empty());
  CHECK_FALSE(draw_in_terminal({"t", "x", "y", {{"nan", {{1, std::nan("")}, {2, 5}}}}}).empty());
}

TEST_CASE("the mean of curves has a band of one standard deviation of the sample") {
  // At x = 1: 10, 20, 30, mean 20, deviation sqrt((100 + 0 + 100) / 2) = 10.
  const Curve mean = mean_curve(
      {{"a", {{1, 10}, {2, 5}}}, {"b", {{1, 20}, {2, 5}}}, {"c", {{1, 30}, {2, 5}}}}, "m");
  CHECK(mean.label == "m");
  REQUIRE(mean.points.size() == 2);
  CHECK(mean.points[0].second == Approx(20));
  CHECK(mean.spread[0] == Approx(10));
  CHECK(mean.points[1].second == Approx(5));
  CHECK(mean.spread[1] == Approx(0));
}

TEST_CASE("curves with points at different places meet by interpolation, where all have values") {
  // y = x and y = 3 x, over [0, 4] and [1, 6]: common [1, 4], mean 2 x, deviation x sqrt(2).
  const Curve mean = mean_curve({{"a", {{0, 0}, {4, 4}}}, {"b", {{1, 3}, {3, 9}, {6, 18}}}}, "m");
  REQUIRE(mean.points.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto [x, y] = mean.points[i];
    CHECK(y == Approx(2 * x));
    CHECK(mean.spread[i] == Approx(x * std::sqrt(2)));
  }
  CHECK(mean.points.front().first == 1);
  CHECK(mean.points.back().first == 4);
}

TEST_CASE("a mean of one run has no band, of none no points, of long runs a few hundred") {
  CHECK(mean_curve({kPlot.curves.front()}, "m").spread.empty());
  CHECK(mean_curve({kPlot.curves.front()}, "m").points == kPlot.curves.front().points);
  CHECK(mean_curve({}, "m").points.empty());
  CHECK(mean_curve({kPlot.curves.front(), {"empty", {}}}, "m").points.empty());
  Curve longest;
  for (int x = 0; x < 5000; ++x) longest.points.emplace_back(x, x);
  const Curve mean = mean_curve({longest, longest}, "m");
  CHECK(mean.points.size() == 200);
  CHECK(mean.points.front().first == 0);
  CHECK(mean.points.back().first == 4999);
}

TEST_CASE("panels stand side by side under one title, with one legend") {
  const auto path = std::filesystem::temp_directory_path() /
                    ("covey-panels-" + std::to_string(getpid()) + ".svg");
  Plot left{"left", "x", "y", {{"a", {{1, 1}, {2, 2}}, {.1, .2}}, {"b", {{1, 2}, {2, 1}}}}};
  Plot right = left;
  right.title = "right";
  const auto width = [&](const std::vector<Plot>& panels) {
    REQUIRE(write_picture(panels, "both", path).ok());
    const std::string svg = file_content(path);
    const auto at = svg.find("width=\"") + 7;
    return std::stod(svg.substr(at));
  };
  const double two = width({left, right});
  const double three = width({left, right, right});
  const double four = width({left, right, right, right});
  CHECK(three > two);
  CHECK(four == three);  // a second row
  CHECK_FALSE(write_picture(std::vector<Plot>{}, "none", path).ok());
  std::filesystem::remove(path);
}

TEST_CASE("the axes of a picture hold the whole band") {
  const Plot band{"t", "x", "y", {{"a", {{1, 50}, {2, 50}}, {20, 40}}}};
  const Plot line{"t", "x", "y", {{"a", {{1, 10}, {2, 90}}}}};
  const auto svg = [](const Plot& plot) {
    const auto path = std::filesystem::temp_directory_path() /
                      ("covey-band-" + std::to_string(getpid()) + ".svg");
    REQUIRE(write_picture(plot, path).ok());
    const std::string content = file_content(path);
    std::filesystem::remove(path);
    return content;
  };
  // The figures beside the axes are glyphs; both plots span 10 to 90 and so have the same ones.
  const auto glyphs = [&](const Plot& plot) {
    const std::string content = svg(plot);
    std::size_t uses = 0;
    for (auto at = content.find("<use"); at != std::string::npos;
         at = content.find("<use", at + 1)) {
      ++uses;
    }
    return uses;
  };
  CHECK(glyphs(band) == glyphs(line));
  CHECK(svg(band).find("fill-opacity:0.18") != std::string::npos);
}

TEST_CASE("a band is a closed shape around its curve and nothing else") {
  // Three points make a band of six corners; text drawn before must not become a seventh.
  const auto path =
      std::filesystem::temp_directory_path() / ("covey-shape-" + std::to_string(getpid()) + ".svg");
  REQUIRE(write_picture({"t", "x", "y", {{"a", {{1, 5}, {2, 6}, {3, 5}}, {1, 1, 1}}}}, path).ok());
  const std::string svg = file_content(path);
  std::filesystem::remove(path);
  const auto band = svg.find("fill-opacity:0.18");
  REQUIRE(band != std::string::npos);
  const auto begin = svg.find(" d=\"", band) + 4;
  const std::string shape = svg.substr(begin, svg.find(" Z", begin) - begin);
  CHECK(std::ranges::count(shape, 'M') == 1);
  CHECK(std::ranges::count(shape, 'L') == 5);
}
