#include <catch2/catch.hpp>
#include <covey/metrics.hpp>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace covey {

TEST_CASE("fairness figures are percentages over devices, each counting once") {
  // 0.00, 0.05, ..., 0.95: mean 47.5; worst two 0 and 5, best two 90 and 95; population variance of
  // 5 * (0..19): 25 * (20^2 - 1) / 12 = 831.25.
  std::vector<double> accuracies;
  for (int i = 19; i >= 0; --i) accuracies.push_back(0.05 * i);
  const FairnessFigures figures = fairness(accuracies);
  CHECK(figures.devices == 20);
  CHECK(figures.average == Approx(47.5));
  CHECK(figures.worst10 == Approx(2.5));
  CHECK(figures.best10 == Approx(92.5));
  CHECK(figures.variance == Approx(831.25));
}

TEST_CASE("with fewer than ten devices the worst tenth is the worst device") {
  const FairnessFigures figures = fairness({0.5, 0.2, 0.8});
  CHECK(figures.worst10 == Approx(20));
  CHECK(figures.best10 == Approx(80));
}

TEST_CASE("fairness of no devices is all zeros") {
  const FairnessFigures figures = fairness({});
  CHECK(figures.devices == 0);
  CHECK(figures.average == 0);
  CHECK(figures.variance == 0);
}

TEST_CASE("rounds to target interpolate the running maximum") {
  // Running maximum .5, .6, .6, .9: 0.8 lies two thirds of the way from round 3 to round 4.
  const std::vector<std::pair<double, double>> curve{{1, .5}, {2, .6}, {3, .4}, {4, .9}};
  CHECK(rounds_to_target(curve, 0.8).value() == Approx(3 + 2.0 / 3));
  CHECK(rounds_to_target(curve, 0.9).value() == Approx(4));
  CHECK(rounds_to_target(curve, 0.55).value() == Approx(1.5));
}

TEST_CASE("rounds to target interpolate between evaluations that lie apart") {
  CHECK(rounds_to_target({{10, 0.2}, {20, 0.7}}, 0.6).value() == Approx(18));
}

TEST_CASE("a target met at the first evaluation takes that many rounds") {
  CHECK(rounds_to_target({{5, 0.9}, {6, 0.95}}, 0.8).value() == Approx(5));
}

TEST_CASE("a target that is not reached has no rounds") {
  CHECK_FALSE(rounds_to_target({{1, 0.5}, {2, 0.7}}, 0.8));
  CHECK_FALSE(rounds_to_target({}, 0.8));
}

TEST_CASE("a line of metrics is one JSON object with every figure") {
  RoundMetrics metrics;
  metrics.round = RoundNumber{12};
  metrics.started = Time(Duration(1'500'000));
  metrics.ended = Time(Duration(2'250'000));
  metrics.selected = 10;
  metrics.accepted = 7;
  metrics.rejected = 1;
  metrics.dropped = 6;
  metrics.declined = 1;
  metrics.lost = 2;
  metrics.late = 3;
  metrics.examples = 4200;
  metrics.train_loss = 0.25;
  metrics.train_steps = 420;
  metrics.bytes_up = 1ull << 40;
  metrics.bytes_down = 99;
  metrics.accuracy = 0.75;
  metrics.loss = 0.5;
  const std::string line = to_json_line(metrics);
  CHECK(line.find('\n') == std::string::npos);
  CHECK(nlohmann::json::parse(line) == nlohmann::json({{"round", 12},
                                                       {"committed", true},
                                                       {"started_s", 1.5},
                                                       {"ended_s", 2.25},
                                                       {"selected", 10},
                                                       {"accepted", 7},
                                                       {"rejected", 1},
                                                       {"dropped", 6},
                                                       {"declined", 1},
                                                       {"lost", 2},
                                                       {"late", 3},
                                                       {"examples", 4200},
                                                       {"train_loss", 0.25},
                                                       {"train_steps", 420},
                                                       {"bytes_up", 1ull << 40},
                                                       {"bytes_down", 99},
                                                       {"accuracy", 0.75},
                                                       {"loss", 0.5}}));
}

TEST_CASE("a line of a secure and private round tells what was summed and spent") {
  RoundMetrics metrics;
  metrics.examples = 4200;
  metrics.train_loss = 0.25;
  metrics.train_steps = 420;
  metrics.secure = true;
  metrics.masked = 9;
  metrics.recovered = 2;
  metrics.clipped_coordinates = 1ull << 40;
  metrics.clipped_weights = 3;
  metrics.epsilon = 1.5;
  metrics.delta = 1e-5;
  metrics.clip_norm = 0.75;
  metrics.noise_multiplier = 1.25;
  auto json = nlohmann::json::parse(to_json_line(metrics));
  CHECK(json["examples"] == 4200);
  CHECK(json["secagg_masked"] == 9);
  CHECK(json["secagg_recovered"] == 2);
  CHECK(json["clipped_coordinates"] == 1ull << 40);
  CHECK(json["clipped_weights"] == 3);
  CHECK(json["epsilon"] == 1.5);
  CHECK(json["delta"] == 1e-5);
  CHECK(json["clip_norm"] == 0.75);
  CHECK(json["noise_multiplier"] == 1.25);
}

TEST_CASE("figures that devices did not tell are left out, not written as zero") {
  RoundMetrics metrics;
  metrics.private_figures = true;
  metrics.secure = true;
  const auto json = nlohmann::json::parse(to_json_line(metrics));
  for (const char* key :
       {"examples", "train_loss", "train_steps", "clipped_coordinates", "clipped_weights"}) {
    CHECK_FALSE(json.contains(key));
  }
  CHECK(json.contains("accepted"));
}

TEST_CASE("a plain round's line says nothing of privacy") {
  const auto json = nlohmann::json::parse(to_json_line(RoundMetrics{}));
  for (const char* key : {"secagg_masked", "secagg_recovered", "clipped_coordinates",
                          "clipped_weights", "epsilon", "delta", "clip_norm", "noise_multiplier"}) {
    CHECK_FALSE(json.contains(key));
  }
}

TEST_CASE("an epsilon without bound is null, which JSON can say") {
  RoundMetrics metrics;
  metrics.epsilon = std::numeric_limits<double>::infinity();
  CHECK(nlohmann::json::parse(to_json_line(metrics))["epsilon"].is_null());
}

TEST_CASE("a round that was not evaluated has no accuracy, and no figure breaks the JSON") {
  RoundMetrics metrics;
  metrics.train_loss = std::numeric_limits<double>::quiet_NaN();
  const auto json = nlohmann::json::parse(to_json_line(metrics));
  CHECK_FALSE(json.contains("accuracy"));
  CHECK_FALSE(json.contains("loss"));
  CHECK(json["train_loss"].is_null());
}

namespace {

/// A round of a simulated fleet whose devices were evaluated one by one.
RoundMetrics simulated_round() {
  RoundMetrics metrics;
  metrics.staleness = 1.5;
  metrics.energy_j = 2048;
  metrics.wall_s = 0.125;
  metrics.wasted_s = 33;
  metrics.devices = FairnessFigures{100, 80.5, 42.25, 99, 210};
  return metrics;
}

/// The cells of a line of CSV by the names in the header.
std::map<std::string, std::string> cells_of(const RoundMetrics& metrics) {
  const auto split = [](const std::string& text) {
    std::vector<std::string> cells(1);
    for (const char c : text) {
      if (c == ',') {
        cells.emplace_back();
      } else {
        cells.back() += c;
      }
    }
    return cells;
  };
  const auto names = split(csv_header());
  const auto cells = split(to_csv_line(metrics));
  REQUIRE(names.size() == cells.size());
  std::map<std::string, std::string> result;
  for (std::size_t i = 0; i < names.size(); ++i) result[names[i]] = cells[i];
  REQUIRE(result.size() == names.size());  // no column twice
  return result;
}

}  // namespace

TEST_CASE("a line of a simulated round tells staleness, energy, time and the devices' accuracy") {
  const auto json = nlohmann::json::parse(to_json_line(simulated_round()));
  CHECK(json["staleness"] == 1.5);
  CHECK(json["energy_j"] == 2048);
  CHECK(json["wall_s"] == 0.125);
  CHECK(json["wasted_s"] == 33);
  CHECK(json["devices"] == nlohmann::json({{"devices", 100},
                                           {"average", 80.5},
                                           {"worst10", 42.25},
                                           {"best10", 99},
                                           {"variance", 210}}));
  const auto plain = nlohmann::json::parse(to_json_line(RoundMetrics{}));
  for (const char* key : {"staleness", "energy_j", "wall_s", "wasted_s", "devices"}) {
    CHECK_FALSE(plain.contains(key));
  }
}

TEST_CASE("a line of CSV has a cell for every figure, empty where the figure is absent") {
  const auto absent = cells_of(RoundMetrics{});
  CHECK(absent.at("round") == "0");
  CHECK(absent.at("committed") == "1");
  CHECK(absent.at("accuracy").empty());
  CHECK(absent.at("devices.variance").empty());
  auto metrics = simulated_round();
  metrics.accuracy = 0.75;
  const auto cells = cells_of(metrics);
  CHECK(cells.at("accuracy") == "0.75");
  CHECK(cells.at("devices.worst10") == "42.25");
  CHECK(cells.at("devices.variance") == "210.0");
  CHECK(cells.at("energy_j") == "2048.0");
}

TEST_CASE("every key of metrics.jsonl has a column in metrics.csv") {
  auto metrics = simulated_round();
  metrics.accuracy = metrics.loss = metrics.epsilon = metrics.delta = 0.5;
  metrics.clip_norm = metrics.noise_multiplier = metrics.rounding_error = 0.5;
  metrics.secure = true;
  const auto cells = cells_of(metrics);
  const auto json = nlohmann::json::parse(to_json_line(metrics));
  std::size_t keys = 0;
  for (const auto& [key, value] : json.items()) {
    if (key == "devices") continue;
    INFO(key);
    REQUIRE(cells.contains(key));
    CHECK_FALSE(cells.at(key).empty());
    ++keys;
  }
  CHECK(keys + 5 == cells.size());  // and the five of devices
}

TEST_CASE("CSV says figures without bound as inf and nan") {
  RoundMetrics metrics;
  metrics.epsilon = std::numeric_limits<double>::infinity();
  metrics.train_loss = std::numeric_limits<double>::quiet_NaN();
  const auto cells = cells_of(metrics);
  CHECK(cells.at("epsilon") == "inf");
  CHECK(cells.at("train_loss") == "nan");
}

}  // namespace covey
