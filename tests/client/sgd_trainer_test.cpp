#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "training_fixture.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

TEST_CASE("training is minibatch SGD over the shuffled examples, bit for bit") {
  CAPTURE(kSeed);
  Fixture f;
  SECTION("logistic regression") {}
  SECTION("a network with a hidden layer") {
    f.use_model(
        {{kFeatures},
         {{LayerKind::kDense, 8, 0}, {LayerKind::kRelu}, {LayerKind::kDense, kClasses, 0}}});
  }
  SECTION("all examples in one batch") { f.task.plan.batch_size = 0; }
  SECTION("a batch larger than the data") { f.task.plan.batch_size = 1000; }
  const auto trained = f.train();
  REQUIRE(trained);
  check_equal(*trained, reference(f, 3, 0));
  CHECK(trained->num_examples == 25);
  CHECK(trained->weight == 25);
  CHECK(trained->scalars.empty());
}

TEST_CASE("25 examples in batches of 4 for 3 epochs are 21 steps, the last of each smaller") {
  const Fixture f;
  std::atomic<std::uint32_t> steps_done{0};
  const auto trained = f.train({.steps_done = &steps_done});
  REQUIRE(trained);
  CHECK(trained->steps == 21);
  CHECK(steps_done == 21);
}

TEST_CASE("FedProx steps towards the round's model") {
  Fixture f;
  f.task.plan.strategy = "fedprox";
  f.task.plan.strategy_parameters = {{"proximal-mu", 5.0}};
  const auto trained = f.train();
  REQUIRE(trained);
  check_equal(*trained, reference(f, 3, 5.0f));
  CHECK(decode(*trained) != reference(f, 3, 0).update);
}

TEST_CASE("q-FedAvg is given the loss of all local examples at the round's model") {
  Fixture f;
  const auto size = GENERATE(50u, 700u);  // 700: in more than one batch of evaluation
  f.data = make_data(size);
  f.indices.resize(size);
  std::iota(f.indices.begin(), f.indices.end(), 0u);
  f.task.plan.strategy = "qfedavg";
  f.task.plan.strategy_parameters = {{"q", 1.0}};
  const auto trained = f.train();
  REQUIRE(trained);
  // With q = 1 the weight is F_k / learning rate (Li et al. 2020, Algorithm 2).
  const auto network = *models::Network::make(f.task.plan.model);
  models::Workspace workspace(network, size);
  std::vector<float> x(size * kFeatures);
  std::vector<std::int32_t> y(size);
  f.data.gather(f.indices, x, y);
  const double loss = network.evaluate(workspace, x, y, f.initial.span()).loss();
  CHECK(trained->weight * static_cast<double>(f.task.plan.learning_rate) == Approx(loss));
  CHECK(trained->scalars.size() == 1);
}

TEST_CASE("the same task gives the same bytes, whatever the trainer did before") {
  const Fixture f;
  const auto expected = f.train();
  REQUIRE(expected);
  SgdTrainer trainer(f.data, f.registry);
  std::vector<std::uint32_t> others(50);
  std::iota(others.begin(), others.end(), 0u);

  Fixture other;
  other.use_model({{kFeatures}, {{LayerKind::kDense, 9, 0}, {LayerKind::kDense, kClasses, 0}}});
  other.task.plan.strategy = "qfedavg";
  other.task.plan.strategy_parameters = {{"q", 2.0}};
  other.task.plan.batch_size = 0;
  trainer.use_examples(others);
  REQUIRE(trainer.train(other.task, {}));

  trainer.use_examples(f.indices);
  for (int repeat = 0; repeat < 2; ++repeat) {
    const auto trained = trainer.train(f.task, {});
    REQUIRE(trained);
    CHECK(trained->digest == expected->digest);
  }
}

TEST_CASE("seed, round and client each change the order of examples") {
  const Fixture f;
  const auto expected = f.train();
  Fixture g;
  SECTION("seed") { g.task.plan.seed += 1; }
  SECTION("round") { g.task.round = RoundNumber{5}; }
  SECTION("client") { g.task.client = ClientId{12}; }
  CHECK(g.train()->digest != expected->digest);
}

TEST_CASE("strategy parameters are not mistaken for those of the round before") {
  Fixture f;
  SgdTrainer trainer(f.data, f.registry);
  trainer.use_examples(f.indices);
  f.task.plan.strategy = "fedprox";
  f.task.plan.strategy_parameters = {{"proximal-mu", 5.0}};
  REQUIRE(trainer.train(f.task, {}));
  f.task.plan.strategy_parameters = {{"proximal-mu", 1.0}};
  check_equal(*trainer.train(f.task, {}), reference(f, 3, 1.0f));
}

TEST_CASE("a cancelled training ends with an error") {
  const Fixture f;
  const std::atomic<bool> cancelled{true};
  const auto trained = f.train({.cancelled = &cancelled});
  REQUIRE_FALSE(trained);
  CHECK_THAT(trained.error().message, Catch::Contains("cancelled"));
}

TEST_CASE("short of time, fewer epochs are trained only where the plan accepts them") {
  Fixture f;
  SECTION("accepted") {
    f.task.plan.accept_partial_work = true;
    const auto trained = f.train({.max_epochs = 2});
    REQUIRE(trained);
    check_equal(*trained, reference(f, 2, 0));
  }
  SECTION("told to wrap up, it ends with the first epoch") {
    const std::atomic<bool> wrap_up{true};
    f.task.plan.accept_partial_work = true;
    check_equal(*f.train({.wrap_up = &wrap_up}), reference(f, 1, 0));
  }
  SECTION("told to wrap up where partial work is not accepted, it goes on") {
    const std::atomic<bool> wrap_up{true};
    check_equal(*f.train({.wrap_up = &wrap_up}), reference(f, 3, 0));
  }
  SECTION("more time than needed") {
    f.task.plan.accept_partial_work = true;
    check_equal(*f.train({.max_epochs = 9}), reference(f, 3, 0));
  }
  SECTION("not accepted") {
    const auto trained = f.train({.max_epochs = 2});
    REQUIRE_FALSE(trained);
    CHECK_THAT(trained.error().message, Catch::Contains("not enough time: 2 of 3"));
  }
  SECTION("no time at all") {
    f.task.plan.accept_partial_work = true;
    CHECK_FALSE(f.train({.max_epochs = 0}));
  }
}

TEST_CASE("training that diverges is an error that names the step") {
  Fixture f;
  f.data = make_data(50, 1e18f);
  f.task.plan.learning_rate = 1e30f;
  const auto trained = f.train();
  REQUIRE_FALSE(trained);
  CHECK_THAT(trained.error().message, Catch::Contains("epoch 1, step 2"));
}

TEST_CASE("parameters that are not finite are an error, even behind the last loss") {
  Fixture f;
  f.data = make_data(50, 1e30f);  // one step: the loss before it is still finite
  f.task.plan.learning_rate = 1e30f;
  f.task.plan.batch_size = 0;
  f.task.plan.local_epochs = 1;
  f.initial = ParameterVector(f.initial.size());
  f.task.model = encode_fp32(f.initial.span());
  const auto trained = f.train();
  REQUIRE_FALSE(trained);
  CHECK_THAT(trained.error().message, Catch::Contains("parameters are not finite"));
}

TEST_CASE("a plan that cannot be carried out is an error that names what") {
  Fixture f;
  std::string word;
  SECTION("compressor") {
    f.task.plan.compressor = "top-k";
    word = "top-k";
  }
  SECTION("precision") {
    f.task.plan.precision = "fp8";
    word = "fp8";
  }
  SECTION("strategy") {
    f.task.plan.strategy = "nonesuch";
    word = "nonesuch";
  }
  SECTION("strategy parameter") {
    f.task.plan.strategy_parameters = {{"nonesuch", 1.0}};
    word = "nonesuch";
  }
  SECTION("features") {
    f.use_model(*preset_model("logistic", {kFeatures + 1}, kClasses));
    word = "7";
  }
  SECTION("classes") {
    f.use_model(*preset_model("logistic", {kFeatures}, kClasses - 1));
    word = "classes";
  }
  SECTION("model of another size") {
    f.task.model = f.task.model.slice(0, 8);
    word = "8 bytes";
  }
  SECTION("no epochs") {
    f.task.plan.local_epochs = 0;
    word = "0 local epochs";
  }
  SECTION("no examples") {
    f.indices.clear();
    word = "no training examples";
  }
  const auto trained = f.train();
  REQUIRE_FALSE(trained);
  CHECK_THAT(trained.error().message, Catch::Contains(word));
}

TEST_CASE(
    "the echo trainer's update has the model's length, small values and the scalars asked for") {
  const Fixture f;
  EchoTrainer trainer;
  TrainingTask task = f.task;
  SECTION("no scalars") {
    const auto trained = trainer.train(task, {});
    REQUIRE(trained);
    const auto values = decode(*trained);
    CHECK(values.size() == f.initial.size());
    for (const float value : values) CHECK(std::abs(value) <= 1e-3f);
    CHECK(*std::ranges::min_element(values) < *std::ranges::max_element(values));
    CHECK(trained->weight == 1);
    CHECK(trained->num_examples == 1);
    CHECK(trained->scalars.empty());
    CHECK(trained->digest == sha256(trained->update.span()));
    CHECK(trainer.train(task, {})->digest == trained->digest);
    task.client = ClientId{12};
    CHECK(trainer.train(task, {})->digest != trained->digest);
  }
  SECTION("of q-FedAvg") {
    task.plan.strategy = "qfedavg";
    task.plan.strategy_parameters = {{"q", 1.0}};
    CHECK(trainer.train(task, {})->scalars.size() == 1);
  }
  SECTION("of a strategy it does not know") {
    task.plan.strategy = "someone's";
    CHECK(trainer.train(task, {})->scalars.empty());
  }
  SECTION("in the plan's encoding") {
    task.plan.compressor = GENERATE(std::string("bf16"), std::string("int8"));
    const auto layout = models::Network::make(task.plan.model)->layout();
    const auto trained = trainer.train(task, {});
    REQUIRE(trained);
    std::vector<float> values(layout.size());
    REQUIRE(covey::decode(*encoding_named(task.plan.compressor), layout, trained->update.span(),
                          values));
    CHECK(*std::ranges::min_element(values) < *std::ranges::max_element(values));
  }
  SECTION("in an unknown encoding") {
    task.plan.compressor = "top-k";
    CHECK_FALSE(trainer.train(task, {}));
  }
}
