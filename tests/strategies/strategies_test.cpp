#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/random.hpp>
#include <covey/strategies/exact_sum.hpp>
#include <covey/strategies/registry.hpp>
#include <limits>
#include <vector>

using namespace covey;
using namespace covey::strategies;
using Catch::Matchers::Contains;

namespace {

std::unique_ptr<Strategy> make(std::string_view name, const Parameters& parameters = {}) {
  auto made = Registry::with_built_ins().make(name, parameters);
  REQUIRE(made.ok());
  return std::move(made).value();
}

struct Device {
  std::vector<float> trained;
  std::uint64_t num_examples = 1;
  double initial_loss = 0;
};

// One round as the server runs it: contributions through exact sums, then the server step on `w`.
Result<void> run_round(Strategy& strategy, std::vector<float>& w,
                       const std::vector<Device>& devices, float learning_rate = 0.5F) {
  auto& sums = dynamic_cast<SumStrategy&>(strategy);
  ExactSum vector(w.size());
  ExactScalarSum weight;
  std::vector<ExactScalarSum> scalars(strategy.num_scalars());
  for (const Device& device : devices) {
    std::vector<float> update(w.size());
    double squared_norm = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      update[i] = device.trained[i] - w[i];
      squared_norm += static_cast<double>(update[i]) * static_cast<double>(update[i]);
    }
    REQUIRE(strategy.sends_difference());
    // Without the vectors, as from a device that holds no fp32 weights.
    COVEY_ASSIGN(const Contribution contribution,
                 strategy.weigh({.initial = {},
                                 .trained = {},
                                 .squared_norm = squared_norm,
                                 .num_examples = device.num_examples,
                                 .initial_loss = device.initial_loss,
                                 .steps = 1,
                                 .learning_rate = learning_rate}));
    REQUIRE(contribution.scalars.size() == scalars.size());
    COVEY_TRY(vector.add(update, contribution.weight));
    COVEY_TRY(weight.add(contribution.weight));
    for (std::size_t s = 0; s < scalars.size(); ++s) {
      COVEY_TRY(scalars[s].add(contribution.scalars[s]));
    }
  }
  std::vector<double> sum(w.size()), scalar_sums;
  vector.read(sum);
  for (const auto& scalar : scalars) scalar_sums.push_back(scalar.read());
  std::vector<float> state(strategy.state_size(w.size()));
  return sums.apply({.vector = sum,
                     .weight = weight.read(),
                     .scalars = scalar_sums,
                     .count = static_cast<std::uint32_t>(devices.size())},
                    {w, state});
}

std::vector<float> medians(std::vector<std::vector<float>> updates, std::vector<float> w) {
  auto strategy = make("fedmedian");
  std::vector<IndividualUpdate> views;
  for (std::size_t k = 0; k < updates.size(); ++k) {
    views.push_back({ClientId{k + 1}, updates[k], static_cast<double>(1000 * k)});
  }
  REQUIRE(dynamic_cast<IndividualStrategy&>(*strategy).aggregate(views, {w, {}}).ok());
  return w;
}

}  // namespace

TEST_CASE("FedAvg moves the model to the mean of the devices' models weighted by examples") {
  // McMahan et al. 2017, Algorithm 1: w = (1*2 + 3*4) / 4 = 3.5 and (1*0 + 3*1) / 4 = 0.75.
  auto strategy = make("fedavg");
  std::vector<float> w{1, -1};
  REQUIRE(run_round(*strategy, w, {{{2, 0}, 1}, {{4, 1}, 3}}).ok());
  CHECK(w == std::vector<float>{3.5F, 0.75F});
  CHECK(strategy->local_rule().proximal_mu == 0);
  CHECK_FALSE(strategy->local_rule().needs_initial_loss);
}

TEST_CASE("FedAvg of devices without examples is an error and leaves the model") {
  auto strategy = make("fedavg");
  std::vector<float> w{1, -1};
  const auto applied = run_round(*strategy, w, {{{2, 0}, 0}, {{4, 1}, 0}});
  REQUIRE_FALSE(applied.ok());
  CHECK_THAT(applied.error().message, Contains("total weight of 0"));
  CHECK(w == std::vector<float>{1, -1});
}

TEST_CASE("a strategy that sends another vector than the difference must write it itself") {
  class Forgetful final : public SumStrategy {
   public:
    std::string_view name() const override { return "forgetful"; }
    bool sends_difference() const override { return false; }
    Result<void> apply(const Sum&, ServerModel) override { return {}; }
  };
  std::vector<float> update{1, 2};
  const auto filled = Forgetful().fill_update(LocalOutcome{}, update);
  REQUIRE_FALSE(filled.ok());
  CHECK_THAT(filled.error().message, Contains("forgetful") && Contains("fill_update"));
  CHECK(update == std::vector<float>{1, 2});
}

TEST_CASE("FedProx gives devices its proximal mu and averages as FedAvg does") {
  // Li et al. 2020, Algorithm 2: only the device's objective differs from FedAvg.
  auto fedprox = make("fedprox", {{"proximal-mu", 0.25}});
  CHECK(fedprox->local_rule().proximal_mu == 0.25F);
  std::vector<float> w{1, -1};
  REQUIRE(run_round(*fedprox, w, {{{2, 0}, 1}, {{4, 1}, 3}}).ok());
  CHECK(w == std::vector<float>{3.5F, 0.75F});
  CHECK(make("fedprox")->local_rule().proximal_mu == 1.0F);
}

TEST_CASE("q-FedAvg takes the step of its paper's Algorithm 2") {
  // Li et al. 2020 (1905.10497), q = 1, learning rate 1/2, so L = 2, from w = (0, 0):
  //   device 1: w_1 = (1, 0), F = 4: g = (-2, 0), Delta = (-8, 0), h = 1*4 + 2*4  = 12
  //   device 2: w_2 = (0, 2), F = 1: g = (0, -4), Delta = (0, -4), h = 1*16 + 2*1 = 18
  //   w = -(Delta_1 + Delta_2) / 30 = (8/30, 4/30), whatever the numbers of examples.
  auto strategy = make("qfedavg", {{"q", 1.0}});
  CHECK(strategy->local_rule().needs_initial_loss);
  std::vector<float> w{0, 0};
  REQUIRE(run_round(*strategy, w, {{{1, 0}, 5, 4.0}, {{0, 2}, 900, 1.0}}).ok());
  CHECK(w[0] == Approx(8.0 / 30).epsilon(1e-6));
  CHECK(w[1] == Approx(4.0 / 30).epsilon(1e-6));
}

TEST_CASE("q-FedAvg with q = 2 weighs a loss by its square") {
  // As above with q = 2: h_1 = 2*4*4 + 2*16 = 64, Delta_1 = 16*(-2, 0); h_2 = 2*1*16 + 2*1 = 34,
  // Delta_2 = (0, -4); w = (32, 4) / 98.
  auto strategy = make("qfedavg", {{"q", 2.0}});
  std::vector<float> w{0, 0};
  REQUIRE(run_round(*strategy, w, {{{1, 0}, 5, 4.0}, {{0, 2}, 900, 1.0}}).ok());
  CHECK(w[0] == Approx(32.0 / 98).epsilon(1e-6));
  CHECK(w[1] == Approx(4.0 / 98).epsilon(1e-6));
}

TEST_CASE("q-FedAvg with q = 0 is the plain mean of the devices' models") {
  constexpr std::uint64_t kSeed = 11;
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<float> w(50);
  for (float& v : w) v = static_cast<float>(random.normal());
  std::vector<Device> devices(9);
  for (Device& device : devices) {
    device = {w, random.below(100), random.uniform(0, 5)};
    for (float& v : device.trained) v += static_cast<float>(0.1 * random.normal());
  }
  std::vector<double> mean(w.size());
  for (const Device& device : devices) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      mean[i] += static_cast<double>(device.trained[i]) / static_cast<double>(devices.size());
    }
  }
  auto strategy = make("qfedavg", {{"q", 0.0}});
  REQUIRE(run_round(*strategy, w, devices, 0.1F).ok());
  for (std::size_t i = 0; i < w.size(); ++i) {
    REQUIRE(static_cast<double>(w[i]) == Approx(mean[i]).margin(1e-6));
  }
}

TEST_CASE("q-FedAvg stays finite at a loss of zero") {
  auto strategy = make("qfedavg", {{"q", 0.5}});
  std::vector<float> w{0};
  REQUIRE(run_round(*strategy, w, {{{1}, 1, 0.0}, {{1}, 1, 2.0}}).ok());
  CHECK(std::isfinite(w[0]));
}

TEST_CASE("q-FedAvg refuses what has no step: no usable loss, rate or sum of h") {
  auto strategy = make("qfedavg", {{"q", 1.0}});
  std::vector<float> w{0};
  CHECK_FALSE(run_round(*strategy, w, {{{1}, 1, std::nan("")}}).ok());
  CHECK_FALSE(run_round(*strategy, w, {{{1}, 1, -1.0}}).ok());
  CHECK_FALSE(run_round(*strategy, w, {{{1}, 1, 1.0}}, 0.0F).ok());
  const auto diverged =
      run_round(*strategy, w, {{{std::numeric_limits<float>::infinity()}, 1, 1.0}});
  REQUIRE_FALSE(diverged.ok());
  CHECK_THAT(diverged.error().message, Contains("diverged"));
  const std::array<double, 1> vector{1};
  auto& sums = dynamic_cast<SumStrategy&>(*strategy);
  for (const double h : {0.0, -1.0, std::numeric_limits<double>::infinity()}) {
    const auto applied =
        sums.apply({.vector = vector, .weight = 1, .scalars = {h}, .count = 3}, {w, {}});
    REQUIRE_FALSE(applied.ok());
    CHECK_THAT(applied.error().message, Contains("h_k") && Contains("3 contributions"));
  }
  CHECK(w == std::vector<float>{0});
}

TEST_CASE("the median of an odd number of updates is the middle one per coordinate") {
  // Yin et al. 2018, Definition 1.
  CHECK(medians({{5, -1}, {1, 0}, {3, 100}}, {10, 20}) == std::vector<float>{13, 20});
}

TEST_CASE("the median of an even number of updates is the mean of the two middle ones") {
  CHECK(medians({{4, 0}, {1, 0}, {2, -8}, {90, -2}}, {0, 0}) == std::vector<float>{3, -1});
  CHECK(medians({{1}, {2}}, {0}) == std::vector<float>{1.5F});
}

TEST_CASE("the median of one update is that update") {
  CHECK(medians({{7, -7}}, {1, 1}) == std::vector<float>{8, -6});
}

TEST_CASE("fewer than half the devices cannot move the median beyond the honest ones") {
  CHECK(medians({{1}, {1e30F}, {2}, {-1e30F}, {1.5F}, {1e30F}, {3}}, {0}) == std::vector<float>{2});
}

TEST_CASE("the median is the same however coordinates fall into blocks") {
  constexpr std::uint64_t kSeed = 3;
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kTraining);
  // 2050 coordinates: two whole blocks and a rest; 1500 updates: blocks of 699.
  for (const std::size_t count : {std::size_t{6}, std::size_t{1500}}) {
    const std::size_t size = 2050;
    std::vector<std::vector<float>> updates(count, std::vector<float>(size));
    for (auto& update : updates) {
      for (float& v : update) v = static_cast<float>(random.uniform(-1, 1));
    }
    const auto moved = medians(updates, std::vector<float>(size, 0));
    for (std::size_t j = 0; j < size; ++j) {
      std::vector<float> column;
      for (const auto& update : updates) column.push_back(update[j]);
      std::sort(column.begin(), column.end());
      const double expected = 0.5 * (static_cast<double>(column[count / 2 - 1]) +
                                     static_cast<double>(column[count / 2]));
      REQUIRE(moved[j] == static_cast<float>(expected));
    }
  }
}

TEST_CASE("the median of nothing is an error") {
  auto strategy = make("fedmedian");
  std::vector<float> w{1};
  CHECK_FALSE(dynamic_cast<IndividualStrategy&>(*strategy).aggregate({}, {w, {}}).ok());
}
