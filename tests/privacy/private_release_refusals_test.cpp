#include <catch2/catch.hpp>
#include <covey/privacy/secret.hpp>
#include <string>
#include <vector>

#include "private_release_runs.hpp"

namespace covey::privacy {

TEST_CASE("no mechanism makes nothing, and a guarantee without one is refused") {
  PrivateRelease::Run run = plain_run();
  run.config.mechanism = "none";
  run.config.noise_multiplier = 0;
  const auto nothing = PrivateRelease::make(run);
  REQUIRE(nothing.ok());
  CHECK_FALSE(nothing->has_value());
  run.config.epsilon = 2;
  says(refusal(run), "privacy.epsilon = 2 asks for a guarantee");
  run.config.epsilon = 0;
  run.config.noise_multiplier = 1;
  says(refusal(run), "privacy.noise-multiplier = 1 asks for a guarantee");
}

TEST_CASE("a configuration that cannot give its guarantee is refused, naming the key to change") {
  using Run = PrivateRelease::Run;
  const Run run = plain_run();
  REQUIRE(refusal(run) == "accepted");
  says(refusal_with(run, [](Run& r) { r.sum_strategy = false; }), "looks at single updates");
  says(refusal_with(run, [](Run& r) { r.num_scalars = 1; }), "sums a number of each device");
  says(refusal_with(run, [](Run& r) { r.config.delta = 1e-3; }), "privacy.delta = 0.001 must be");
  says(refusal_with(run, [](Run& r) { r.config.delta = 0; }), "privacy.delta = 0 must be");
  says(refusal_with(run, [](Run& r) { r.config.clip_norm = 0; }), "privacy.clip-norm must be");
  says(refusal_with(run, [](Run& r) { r.config.noise_multiplier = 0; }),
       "needs privacy.noise-multiplier, or privacy.epsilon");
  says(refusal_with(run, [](Run& r) { r.num_rounds = 0; }), "at least one device and one round");
  says(refusal_with(run, [](Run& r) { r.config.mechanism = "laplace"; }), "is not known");
  says(refusal_with(run, [](Run& r) { r.config.epsilon = 0.5; }),
       "one round with privacy.noise-multiplier = 2 spends");
  says(refusal_with(run,
                    [](Run& r) {
                      r.selection.policy = "poisson";
                      r.selection.fraction_fit = 0;
                    }),
       "selection.fraction-fit, which is 0");
}

TEST_CASE("noise of the devices needs secure aggregation and an accountant that knows it") {
  using Run = PrivateRelease::Run;
  for (const std::string mechanism : {"discrete-gaussian", "skellam"}) {
    const Run run = distributed_run(mechanism);
    REQUIRE(refusal(run) == "accepted");
    says(refusal_with(run, [](Run& r) { r.secure_aggregation.threat_model = ThreatModel::kNone; }),
         "set secure-aggregation.mode");
    says(refusal_with(run, [](Run& r) { r.config.accountant = "pld"; }), "use \"rdp\"");
    says(refusal_with(run, [](Run& r) { r.config.clip = "adaptive"; }),
         "use \"flat\" or \"per-layer\"");
    says(refusal_with(run, [](Run& r) { r.config.amplification = true; }),
         "protects against the server");
  }
  says(refusal_with(distributed_run("skellam"), [](Run& r) { r.config.accountant = "zcdp"; }),
       "use \"rdp\"");
  Run local = plain_run();
  local.config.mechanism = "local-gaussian";
  REQUIRE(refusal(local) == "accepted");
  says(refusal_with(local, [](Run& r) { r.config.clip = "adaptive"; }), "use \"flat\"");
  says(refusal_with(local, [](Run& r) { r.config.amplification = true; }),
       "protects against the server");
}

TEST_CASE("amplification is refused where not every device waits to be drawn alike") {
  using Run = PrivateRelease::Run;
  Run run = plain_run();
  run.config.amplification = true;
  REQUIRE(refusal(run) == "accepted");
  run.selection.min_available_clients = 1000;
  REQUIRE(refusal(run) == "accepted");
  says(refusal_with(run, [](Run& r) { r.selection.policy = "by-examples"; }), "by-examples");
  says(refusal_with(run, [](Run& r) { r.selection.min_available_clients = 999; }),
       "selection.min-available-clients = 999");
  says(refusal_with(run, [](Run& r) { r.selection.max_waiting = 999; }),
       "selection.max-waiting = 999");
  says(refusal_with(run, [](Run& r) { r.config.accountant = "zcdp"; }), "use \"pld\" or \"rdp\"");
  says(refusal_with(tree_run(), [](Run& r) { r.config.amplification = true; }),
       "privacy.amplification = false");
}

TEST_CASE("how often a device takes part is limited where it is counted, and can be kept") {
  using Run = PrivateRelease::Run;
  const Run tree = tree_run();
  REQUIRE(refusal(tree) == "accepted");
  says(refusal_with(tree, [](Run& r) { r.config.max_participations = 0; }),
       "set privacy.max-participations");
  // 1000 devices make 9000 contributions; 100 rounds of 100 take 10000.
  says(refusal_with(tree, [](Run& r) { r.config.max_participations = 9; }),
       "lets 1000 devices make 9000 contributions; 100 rounds of 100 take more");
  // Drawn with probability 0.1, 100 of them are expected a round.
  says(refusal_with(tree,
                    [](Run& r) {
                      r.selection.policy = "poisson";
                      r.config.max_participations = 9;
                    }),
       "100 rounds of 100 take more");
  // Any mechanism may have a limit, but for one that counts on a draw among all.
  Run central = plain_run();
  central.config.max_participations = 10;
  CHECK(refusal(central) == "accepted");
  says(refusal_with(central, [](Run& r) { r.config.amplification = true; }),
       "takes devices out of the draw");
  CHECK(refusal_with(central, [](Run& r) { r.config.mechanism = "local-gaussian"; }) == "accepted");
}

TEST_CASE("fewer participations of a device cost it less") {
  PrivateRelease::Run run = tree_run();
  run.num_rounds = 10;
  double before = 0;
  for (const std::uint32_t limit : {1U, 2U, 5U, 10U}) {
    run.config.max_participations = limit;
    PrivateRelease release = make(run);
    std::vector<double> sum(run.dimension);
    const auto secrets = seeded_secrets(4, RoundNumber{1}, ClientId{0});
    for (int round = 0; round < 10; ++round) REQUIRE(release.release(sum, 0, *secrets).ok());
    CAPTURE(limit);
    CHECK(release.spent().epsilon > before);
    before = release.spent().epsilon;
  }
}

}  // namespace covey::privacy
