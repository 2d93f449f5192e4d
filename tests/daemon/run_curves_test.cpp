// What a run folder's rounds become: curves, totals, and the files that go on after a restart.

#include "simulation/daemon/run_curves.hpp"

#include <catch2/catch.hpp>
#include <filesystem>

#include "process.hpp"
#include "simulation/daemon/run_folder.hpp"
#include "simulation/daemon/run_summary.hpp"

using namespace covey;
using namespace covey::testing;

namespace {

using Points = std::vector<std::pair<double, double>>;

Points points_of(const TemporaryFolder& folder, const std::string& x, const std::string& y) {
  const auto curve = read_curve(folder.path(), {x, y});
  INFO((curve.ok() ? "" : curve.error().message));
  REQUIRE(curve.ok());
  return curve->points;
}

/// Three rounds of a simulated fleet, of which the second came to nothing.
constexpr const char* kSimulated =
    R"({"round":1,"committed":true,"started_s":0,"ended_s":3600,"accepted":4,"bytes_up":1000000,)"
    R"("bytes_down":2000000,"accuracy":0.5,"energy_j":1000,"wall_s":0.5,"devices":{"worst10":12.5}})"
    "\n"
    R"({"round":2,"committed":false,"started_s":3600,"ended_s":7200,"accepted":1,"bytes_up":500000,)"
    R"("bytes_down":500000,"energy_j":500,"wall_s":0.75})"
    "\n"
    R"({"round":2,"committed":true,"started_s":7200,"ended_s":9000,"accepted":4,"bytes_up":1000000,)"
    R"("bytes_down":2000000,"accuracy":0.75,"energy_j":1000,"wall_s":1.0,"devices":{"worst10":25}})"
    "\n";

RoundMetrics round_number(std::uint32_t number) {
  RoundMetrics metrics;
  metrics.round = RoundNumber{number};
  metrics.accepted = 1;
  metrics.wall_s = number;
  return metrics;
}

std::vector<std::string> event_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("events.out.tfevents.")) files.push_back(name);
  }
  return files;
}

}  // namespace

TEST_CASE("curves lie over rounds, virtual hours, bytes, updates, energy and wall time") {
  const TemporaryFolder folder("curves");
  write_file(folder / "metrics.jsonl", kSimulated);
  CHECK(points_of(folder, "round", "accuracy") == Points{{1, 50}, {2, 75}});
  CHECK(points_of(folder, "hours", "accuracy") == Points{{1, 50}, {2.5, 75}});
  // What the abandoned round sent, accepted and spent is counted, though it has no point of its
  // own.
  CHECK(points_of(folder, "bytes", "accuracy") == Points{{3, 50}, {7, 75}});
  CHECK(points_of(folder, "updates", "accuracy") == Points{{4, 50}, {9, 75}});
  CHECK(points_of(folder, "energy", "accuracy") == Points{{1, 50}, {2.5, 75}});
  CHECK(points_of(folder, "wall", "worst10") == Points{{0.5, 12.5}, {1, 25}});
  CHECK(points_of(folder, "round", "energy_j") == Points{{1, 1000}, {2, 1000}});
  CHECK(points_of(folder, "round", "epsilon").empty());
}

TEST_CASE(
    "a server's hours begin with its first round, and go on when its machine was started again") {
  const TemporaryFolder folder("curves-server");
  write_file(folder / "metrics.jsonl",
             R"({"round":1,"committed":true,"started_s":720000,"ended_s":723600,"loss":3})"
             "\n"
             R"({"round":2,"committed":true,"started_s":725400,"ended_s":727200,"loss":2})"
             "\n"
             R"({"round":3,"committed":true,"started_s":60,"ended_s":1860,"loss":1})"
             "\n");
  CHECK(points_of(folder, "hours", "loss") == Points{{1, 3}, {2, 2}, {2.5, 1}});
}

TEST_CASE("a line that is still being written is left out, a broken one is named") {
  const TemporaryFolder folder("curves-torn");
  write_file(folder / "metrics.jsonl", std::string(kSimulated) + R"({"round":3,"comm)");
  CHECK(points_of(folder, "round", "accuracy").size() == 2);
  for (const char* broken :
       {"{\"round\":3,\"comm\n", "[]\n", "{\"round\":\"3\"}\n",
        "{\"round\":3,\"bytes_up\":\"many\"}\n", "{\"round\":3,\"committed\":1}\n"}) {
    INFO(broken);
    write_file(folder / "metrics.jsonl", std::string(kSimulated) + broken);
    const auto curve = read_curve(folder.path(), {});
    REQUIRE_FALSE(curve.ok());
    CHECK_THAT(curve.error().message, Catch::Contains("metrics.jsonl:4"));
  }
}

TEST_CASE("a run that goes on writes the same files as one that was not interrupted") {
  const TemporaryFolder whole("run-whole"), halves("run-halves");
  const RunConfig config;
  const auto write = [&](const std::string& path, std::uint32_t before, std::uint32_t first,
                         std::uint32_t last) {
    std::vector<RoundMetrics> so_far;
    for (std::uint32_t i = 1; i <= before; ++i) so_far.push_back(round_number(i));
    auto folder = RunFolder::reopen(path, config, so_far);
    REQUIRE(folder.ok());
    for (std::uint32_t i = first; i <= last; ++i) REQUIRE(folder->append(round_number(i)).ok());
  };
  write(whole / "run", 0, 1, 4);
  write(halves / "run", 0, 1, 3);
  const auto events = event_files(halves / "run");
  REQUIRE(events.size() == 1);
  write(halves / "run", 2, 3, 4);  // the third round was not committed durably
  for (const char* name : {"metrics.jsonl", "metrics.csv", "run.toml"}) {
    INFO(name);
    CHECK(read_file(halves / "run/" + name) == read_file(whole / "run/" + name));
  }
  // One file still, of the same start; as long as the uninterrupted run's, whose start may be
  // another.
  CHECK(event_files(halves / "run") == events);
  CHECK(read_file(halves / "run/" + events[0]).size() ==
        read_file(whole / "run/" + event_files(whole / "run").at(0)).size());
}

TEST_CASE("runs that differ in seed and name alone have the same settings") {
  const TemporaryFolder folder("settings");
  RunConfig config;
  const auto settings = [&] {
    write_file(folder / "run.toml", to_toml(config));
    const auto text = settings_of_run(folder.path());
    REQUIRE(text.ok());
    return *text;
  };
  const std::string first = settings();
  config.seed = 77;
  config.name = "another";
  CHECK(settings() == first);
  config.client.learning_rate *= 2;
  CHECK(settings() != first);
}

TEST_CASE("the totals of a run count what every round says, and say only what happened") {
  RoundMetrics first, second;
  first.selected = second.selected = 10;
  first.accepted = 6;
  second.accepted = 2;
  first.dropped = 4;
  first.declined = 1;
  first.lost = 3;
  second.dropped = 8;
  second.late = 8;
  first.energy_j = 1500;
  second.energy_j = 500;
  second.wasted_s = 30;
  first.staleness = 1;
  second.staleness = 5;
  const FleetTotals totals = fleet_totals({first, second});
  CHECK(totals.dropped == 12);
  CHECK(totals.energy_j == 2000.0);
  CHECK(totals.staleness == 2.0);  // (6 * 1 + 2 * 5) / 8 updates
  const std::string text = fleet_summary(totals);
  CHECK_THAT(text, Catch::Contains("of 20 selected 12 dropped out (1 declined, 3 lost, 8 late)"));
  CHECK_THAT(text, Catch::Contains("2 kJ") && Catch::Contains("30.0 s of their work"));
  CHECK(fleet_summary(fleet_totals({RoundMetrics{}})).empty());
}
