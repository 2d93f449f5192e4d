#include <catch2/catch.hpp>
#include <covey/metrics.hpp>
#include <limits>
#include <nlohmann/json.hpp>
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
  metrics.dropped = 2;
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
                                                       {"dropped", 2},
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

}  // namespace covey
