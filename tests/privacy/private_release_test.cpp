#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/privacy/accountant.hpp>
#include <covey/privacy/private_release.hpp>
#include <covey/random.hpp>
#include <string>
#include <vector>

#include "mechanisms/sum_noise.hpp"
#include "private_release_runs.hpp"

namespace covey::privacy {
namespace {

std::unique_ptr<SecretSource> secrets_of(std::uint64_t round) {
  return seeded_secrets(20, RoundNumber{static_cast<std::uint32_t>(round)}, ClientId{0});
}

std::vector<double> released(PrivateRelease& release, std::size_t dimension, std::uint64_t round,
                             double unclipped = 0) {
  std::vector<double> sum(dimension);
  const auto secrets = secrets_of(round);
  REQUIRE(release.release(sum, unclipped, *secrets).ok());
  return sum;
}

/// Of `values` with mean 0, over the expected one: near 1, within 5 standard deviations of
/// sqrt(2 / n) (chi-square).
void check_variance(const std::vector<double>& values, double expected) {
  double squares = 0;
  for (const double x : values) squares += x * x;
  const auto n = static_cast<double>(values.size());
  CHECK(squares / n / expected == Approx(1).margin(5 * std::sqrt(2 / n)).epsilon(0));
}

class FailingSecrets final : public SecretSource {
 public:
  Result<void> fill(std::span<std::byte>) override { return failed("no bytes"); }
};

}  // namespace

TEST_CASE("the draw is counted as the policy makes it") {
  PrivateRelease::Run run = plain_run();
  run.config.amplification = true;
  run.selection.over_selection = 1.3;
  // Goal 100, so 130 of 1000 are drawn and the round closes at 100 reports.
  const PrivateRelease uniform = make(run);
  CHECK(uniform.releases().sampling == Sampling::kFixedSize);
  CHECK(uniform.releases().sampling_rate == Approx(0.13));
  CHECK(uniform.denominator() == 100);
  says(uniform.guarantee(), "one device's data exchanged");
  run.selection.policy = "poisson";
  run.selection.fraction_fit = 0.0333;
  const PrivateRelease poisson = make(run);
  CHECK(poisson.releases().sampling == Sampling::kPoisson);
  CHECK(poisson.releases().sampling_rate == 0.0333);
  CHECK(poisson.denominator() == Approx(33.3));
  says(poisson.guarantee(), "one device more or less");
}

TEST_CASE("epsilon grows round by round as the accountant says") {
  PrivateRelease::Run run = plain_run();
  run.config.amplification = true;
  run.selection.policy = "poisson";
  for (const std::string accountant : {"pld", "rdp"}) {
    run.config.accountant = accountant;
    PrivateRelease release = make(run);
    Releases counted{.noise_multiplier = 2, .sampling = Sampling::kPoisson, .sampling_rate = 0.1};
    const Accountant kind = accountant == "pld" ? Accountant::kPld : Accountant::kRdp;
    for (std::uint32_t round = 0; round < 4; ++round) {
      CAPTURE(accountant, round);
      counted.rounds = round;
      CHECK(release.spent().epsilon == *epsilon_of(counted, kind, 1e-5));
      counted.rounds = round + 1;
      CHECK(release.spent().epsilon_next == *epsilon_of(counted, kind, 1e-5));
      CHECK(release.spent().delta == 1e-5);
      CHECK(release.budget_allows_another());
      released(release, 8, round);
    }
  }
}

TEST_CASE("a budget alone is spent by exactly the run's rounds") {
  PrivateRelease::Run run = plain_run();
  run.config.noise_multiplier = 0;
  run.config.epsilon = 4;
  run.num_rounds = 5;
  PrivateRelease release = make(run);
  for (std::uint32_t round = 0; round < 5; ++round) {
    REQUIRE(release.budget_allows_another());
    released(release, 8, round);
  }
  CHECK_FALSE(release.budget_allows_another());
  CHECK(release.spent().epsilon <= 4);
  CHECK(release.spent().epsilon > 3.99);
  CHECK(release.spent().epsilon_next > 4);
}

TEST_CASE("a budget beside a noise multiplier stops the run before it is overspent") {
  PrivateRelease::Run run = plain_run();
  run.config.epsilon = 4;
  const auto expected =
      rounds_within({.noise_multiplier = 2}, Accountant::kPld, run.config.epsilon, 1e-5);
  PrivateRelease release = make(run);
  std::uint64_t rounds = 0;
  while (release.budget_allows_another()) released(release, 8, rounds++);
  CHECK(rounds == *expected);
  CHECK(rounds > 1);
  CHECK(release.spent().epsilon <= 4);
}

TEST_CASE("central noise has the variance that is counted, whatever the sum") {
  PrivateRelease::Run run = plain_run();
  run.dimension = 40000;
  PrivateRelease release = make(run);
  CHECK(release.device_plan().clip == ClipKind::kFlat);
  CHECK(release.device_plan().clip_norm == 0.5);
  CHECK(release.device_plan().noise == DeviceNoise::kNone);
  std::vector<double> sum(run.dimension), before(run.dimension);
  RandomStream random(3, RandomPurpose::kFault);
  for (double& x : before) x = random.normal(0, 30);
  sum = before;
  const auto secrets = secrets_of(1);
  REQUIRE(release.release(sum, 0, *secrets).ok());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] -= before[i];
  check_variance(sum, 1);  // (2 * 0.5)^2
  double mean = 0;
  for (const double x : sum) mean += x / 40000;
  CHECK(std::abs(mean) < 5 / 200.0);
}

TEST_CASE("what is released lies on one lattice, so low bits tell nothing of the sum") {
  PrivateRelease release = make(plain_run());
  std::vector<double> sum(8, 1.0 / 3);
  const auto secrets = secrets_of(7);
  REQUIRE(release.release(sum, 0, *secrets).ok());
  // z S = 1: the lattice is 2^-30.
  for (const double x : sum) CHECK(std::ldexp(x, 30) == std::floor(std::ldexp(x, 30)));
}

TEST_CASE(
    "a sum that was rounded for secure aggregation gets noise for the norm it may have reached") {
  PrivateRelease::Run run = plain_run();
  run.dimension = 10000;
  run.secure_aggregation.threat_model = ThreatModel::kHonestButCurious;
  run.secure_aggregation.bits = 10;
  run.secure_aggregation.clip = 2.555;  // a quantum of 5.11 / 1022 = 0.005: slack 0.5 in R^10000
  PrivateRelease release = make(run);
  check_variance(released(release, run.dimension, 1), 4);  // (2 (0.5 + 0.5))^2
}

TEST_CASE("beside an adaptive clip the vector's noise grows by what the count costs") {
  PrivateRelease::Run run = plain_run();
  run.config.clip = "adaptive";
  run.config.clip_norm = 1;
  run.dimension = 40000;
  PrivateRelease release = make(run);
  CHECK(release.device_plan().clip == ClipKind::kAdaptive);
  // sigma_b = 100 / 20 = 5: z_delta = (1/4 - 1/100)^-1/2, its square 1 / 0.24.
  check_variance(released(release, run.dimension, 1), 1 / 0.24);
  CHECK(release.noise_multiplier() == 2);
  // z = 10 = 2 sigma_b leaves nothing for the vector.
  run.config.noise_multiplier = 10;
  says(refusal(run), "select more devices");
}

TEST_CASE("an adaptive clip norm finds the quantile and follows it") {
  PrivateRelease::Run run = plain_run();
  run.config.clip = "adaptive";
  run.config.clip_norm = 0.1;
  run.config.target_quantile = 0.7;
  run.config.noise_multiplier = 1;
  run.num_rounds = 200;
  PrivateRelease release = make(run);
  RandomStream random(11, RandomPurpose::kFault);
  const auto run_rounds = [&](double scale, std::uint32_t rounds) {
    for (std::uint32_t round = 0; round < rounds; ++round) {
      double unclipped = 0;
      for (int device = 0; device < 100; ++device) {
        const double norm = scale * random.uniform();  // its 0.7-quantile: 0.7 scale
        unclipped += norm <= release.device_plan().clip_norm ? 0.5 : -0.5;
      }
      released(release, 8, round, unclipped);
    }
  };
  run_rounds(10, 80);
  CHECK(release.device_plan().clip_norm == Approx(7).epsilon(0.15));
  run_rounds(1, 80);
  CHECK(release.device_plan().clip_norm == Approx(0.7).epsilon(0.15));
}

TEST_CASE("an adaptive step is the paper's, up to the count's noise") {
  // All 100 devices within S: b = 1, so S exp(-0.2 (1 - 0.5)) times exp(-0.2 noise / 100), noise ~
  // N(0, 25).
  PrivateRelease::Run run = plain_run();
  run.config.clip = "adaptive";
  double mean = 0, squares = 0;
  constexpr int kTries = 400;
  for (int i = 0; i < kTries; ++i) {
    PrivateRelease release = make(run);
    released(release, 8, static_cast<std::uint64_t>(i), 50);
    const double noise = (std::log(release.device_plan().clip_norm / 0.5) + 0.1) / (0.2 / 100);
    mean += noise / kTries;
    squares += noise * noise / kTries;
  }
  CHECK(std::abs(mean) < 5 * 5 / std::sqrt(kTries));
  CHECK(squares / 25 == Approx(1).margin(5 * std::sqrt(2.0 / kTries)).epsilon(0));
}

TEST_CASE("devices are told their share of the noise") {
  PrivateRelease::Run local = plain_run();
  local.config.mechanism = "local-gaussian";
  PrivateRelease release = make(local);
  CHECK(release.device_plan().noise == DeviceNoise::kGaussian);
  CHECK(release.device_plan().noise_stddev == 1);            // z S
  CHECK(released(release, 8, 1) == std::vector<double>(8));  // the server adds nothing
  CHECK(release.releases().rounds == 1);

  // Quorum 80 of which a tenth may be corrupt: 72 bring z S together.
  for (const std::string mechanism : {"discrete-gaussian", "skellam"}) {
    const PrivateRelease shared = make(distributed_run(mechanism));
    CHECK(shared.device_plan().noise ==
          (mechanism == "skellam" ? DeviceNoise::kSkellam : DeviceNoise::kDiscreteGaussian));
    CHECK(shared.device_plan().noise_stddev == Approx(1 / std::sqrt(72.0)));
    REQUIRE(shared.releases().lattice.has_value());
    CHECK(shared.releases().lattice->devices == 72);
    // 2 C / (2^b - 2), C = 1, b = 16
    CHECK(shared.releases().lattice->quantum == Approx(2.0 / 65534));
    CHECK(shared.releases().lattice->dimension == 8);
    CHECK(shared.releases().lattice->clip_norm == 0.5);
    says(shared.guarantee(), "72 devices");
  }
}

TEST_CASE("DP-FTRL's prefix sums carry one node's noise for each digit of the round") {
  PrivateRelease::Run run = tree_run();
  run.dimension = 20000;
  PrivateRelease release = make(run);
  says(release.guarantee(), "one device more or less, in at most 10 of the 100 rounds");
  std::vector<double> prefix(run.dimension);
  for (std::uint32_t round = 1; round <= 21; ++round) {
    const std::vector<double> step = released(release, run.dimension, round);
    for (std::size_t i = 0; i < prefix.size(); ++i) prefix[i] += step[i];
    CAPTURE(round);
    check_variance(prefix, std::popcount(round));  // z S = 1
    const double tree = *epsilon_of({.noise = NoiseKind::kTree,
                                     .noise_multiplier = 2,
                                     .rounds = round,
                                     .max_participations = 10},
                                    Accountant::kPld, 1e-5);
    CHECK(release.spent().epsilon == tree);
  }
}

TEST_CASE("a tree's nodes differ, and what enters is what leaves") {
  const Secret<32> seed{};
  const auto noise_of = [&](std::uint64_t first, std::uint64_t last) {
    std::vector<double> sum(4);
    for (std::uint64_t round = first; round <= last; ++round) {
      REQUIRE(add_noise(sum, {1, 1}, tree_step(seed, round)).ok());
    }
    return sum;
  };
  // The prefix of 8 is one node, made directly; round 4's node has left in between.
  std::vector<double> root(4);
  std::vector<NoiseTerm> terms;
  terms.push_back({node_secrets(seed, 3, 1), false});
  REQUIRE(add_noise(root, {1, 1}, std::move(terms)).ok());
  CHECK(noise_of(1, 8) == root);
  CHECK(noise_of(1, 4) != root);
  CHECK(noise_of(1, 1) != noise_of(3, 3));
}

TEST_CASE("a server that starts again continues bit for bit") {
  for (const std::string mechanism : {"central-gaussian", "dp-ftrl", "local-gaussian"}) {
    PrivateRelease::Run run = mechanism == "dp-ftrl" ? tree_run() : plain_run();
    run.config.mechanism = mechanism;
    if (mechanism == "central-gaussian") run.config.clip = "adaptive";
    PrivateRelease whole = make(run);
    for (std::uint32_t round = 1; round <= 5; ++round) released(whole, 8, round, 20);
    const std::vector<float> state = whole.state();
    CHECK(state.size() == whole.state_size());

    PrivateRelease again = make(run);
    CHECK(again.state_size() == state.size());
    REQUIRE(again.restore(state).ok());
    CHECK(again.state() == state);
    CHECK(again.device_plan() == whole.device_plan());
    CHECK(again.spent().epsilon == whole.spent().epsilon);
    for (std::uint32_t round = 6; round <= 9; ++round) {
      CHECK(released(again, 8, round, 20) == released(whole, 8, round, 20));
    }
    CHECK(again.state() == whole.state());
  }
}

TEST_CASE("a state that is not this mechanism's is refused and changes nothing") {
  PrivateRelease release = make(plain_run());
  released(release, 8, 1);
  const std::vector<float> state = release.state();
  const auto refused = [&](std::vector<float> wrong) {
    const auto result = release.restore(wrong);
    CHECK(release.state() == state);
    return !result.ok() && result.error().code == ErrorCode::kMalformed;
  };
  std::vector<float> wrong = state;
  wrong.pop_back();
  CHECK(refused(wrong));
  CHECK(refused({}));
  for (const float bad : {-1.0f, 0.5f, 65536.0f, NAN, INFINITY}) {
    wrong = state;
    wrong[2] = bad;
    CHECK(refused(wrong));
  }
  wrong = state;
  wrong[3] = 65535;  // 2^63 rounds
  CHECK(refused(wrong));
  wrong = state;
  wrong[7] = 65535;  // a clip norm that is not a number
  CHECK(refused(wrong));
}

TEST_CASE("without random bits nothing is released and nothing counted") {
  for (const std::string clip : {"flat", "adaptive"}) {
    for (const std::string mechanism : {"central-gaussian", "dp-ftrl"}) {
      if (clip == "adaptive" && mechanism == "dp-ftrl") continue;
      PrivateRelease::Run run = mechanism == "dp-ftrl" ? tree_run() : plain_run();
      run.config.mechanism = mechanism;
      run.config.clip = clip;
      PrivateRelease release = make(run);
      const std::vector<float> state = release.state();
      FailingSecrets secrets;
      std::vector<double> sum(8);
      CHECK_FALSE(release.release(sum, 0, secrets).ok());
      CHECK(release.state() == state);
      CHECK(release.spent().epsilon == 0);
    }
  }
}

TEST_CASE("a sum of another length, or beyond all contributions, is not released") {
  PrivateRelease release = make(plain_run());
  const auto secrets = secrets_of(1);
  std::vector<double> sum(7);
  CHECK_FALSE(release.release(sum, 0, *secrets).ok());
  for (const double huge : {1e30, static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    sum.assign(8, 0);
    sum[3] = huge;
    const auto result = release.release(sum, 0, *secrets);
    REQUIRE_FALSE(result.ok());
    says(result.error().message, "coordinate 3");
  }
  CHECK(release.releases().rounds == 0);
}

}  // namespace covey::privacy
