#include <unistd.h>

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
