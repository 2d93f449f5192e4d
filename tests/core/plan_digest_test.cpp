#include <catch2/catch.hpp>
#include <covey/messages.hpp>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace covey {
namespace {

using Change = std::function<void(TrainingPlan&)>;

TrainingPlan a_plan() {
  TrainingPlan plan;
  plan.strategy = "fedprox";
  plan.strategy_parameters = {{"proximal-mu", 0.5}};
  plan.model.input_shape = {28, 28, 1};
  plan.model.layers = {{.kind = LayerKind::kDense, .units = 10}, {.kind = LayerKind::kRelu}};
  plan.seed = 7;
  return plan;
}

LayerSpec& second_layer(TrainingPlan& plan) { return plan.model.layers[1]; }

const std::map<std::string, Change>& changes_of_training() {
  static const std::map<std::string, Change> changes{
      {"strategy", [](auto& p) { p.strategy = "fedprox2"; }},
      {"parameter's name", [](auto& p) { p.strategy_parameters[0].first = "mu"; }},
      {"parameter's value", [](auto& p) { p.strategy_parameters[0].second = 0.25; }},
      {"parameters", [](auto& p) { p.strategy_parameters.emplace_back("q", 1); }},
      {"local epochs", [](auto& p) { p.local_epochs = 2; }},
      {"batch size", [](auto& p) { p.batch_size = 11; }},
      {"learning rate", [](auto& p) { p.learning_rate = 0.2f; }},
      {"seed", [](auto& p) { p.seed = 8; }},
      {"partial work", [](auto& p) { p.accept_partial_work = true; }},
      {"precision", [](auto& p) { p.precision = "bf16"; }},
      {"compressor", [](auto& p) { p.compressor = "bf16"; }},
      {"update norm", [](auto& p) { p.max_update_norm = 1; }},
      {"optimiser", [](auto& p) { p.optimizer.kind = OptimizerKind::kAdam; }},
      {"momentum", [](auto& p) { p.optimizer.momentum = 0.5f; }},
      {"beta1", [](auto& p) { p.optimizer.beta1 = 0.5f; }},
      {"beta2", [](auto& p) { p.optimizer.beta2 = 0.5f; }},
      {"epsilon", [](auto& p) { p.optimizer.epsilon = 0.5f; }},
      {"weight decay", [](auto& p) { p.optimizer.weight_decay = 0.5f; }},
      {"clip norm", [](auto& p) { p.optimizer.clip_norm = 0.5f; }},
  };
  return changes;
}

const std::map<std::string, Change>& changes_of_the_model() {
  static const std::map<std::string, Change> changes{
      {"input shape", [](auto& p) { p.model.input_shape[2] = 3; }},
      {"input rank", [](auto& p) { p.model.input_shape.push_back(1); }},
      {"loss", [](auto& p) { p.model.loss = Loss::kMeanSquaredError; }},
      {"target", [](auto& p) { p.model.target = Target::kInput; }},
      {"initialisation", [](auto& p) { p.model.initialisation = Initialisation::kHeNormal; }},
      {"torchscript", [](auto& p) { p.model.torchscript = std::string(64, 'a'); }},
      {"a layer more", [](auto& p) { p.model.layers.emplace_back(); }},
      {"a layer's kind", [](auto& p) { second_layer(p).kind = LayerKind::kGelu; }},
      {"a layer's units", [](auto& p) { second_layer(p).units = 1; }},
      {"a layer's kernel", [](auto& p) { second_layer(p).kernel = 1; }},
      {"a layer's stride", [](auto& p) { second_layer(p).stride = 1; }},
      {"a layer's padding", [](auto& p) { second_layer(p).padding = Padding::kValid; }},
      {"a layer's vocabulary", [](auto& p) { second_layer(p).vocabulary = 1; }},
      {"a layer's groups", [](auto& p) { second_layer(p).groups = 1; }},
      {"a layer's back", [](auto& p) { second_layer(p).back = 1; }},
      {"a layer's rate", [](auto& p) { second_layer(p).rate = 0.5f; }},
      {"a layer's peephole", [](auto& p) { second_layer(p).peephole = true; }},
      {"a layer's last step", [](auto& p) { second_layer(p).last_only = true; }},
  };
  return changes;
}

const std::map<std::string, Change>& changes_of_privacy() {
  static const std::map<std::string, Change> changes{
      {"threat model",
       [](auto& p) { p.secure_aggregation.threat_model = ThreatModel::kMaliciousServer; }},
      {"cipher", [](auto& p) { p.secure_aggregation.cipher = MaskCipher::kChaCha20; }},
      {"graph", [](auto& p) { p.secure_aggregation.complete_graph = true; }},
      {"bits", [](auto& p) { p.secure_aggregation.bits = 8; }},
      {"clip", [](auto& p) { p.secure_aggregation.clip = 2; }},
      {"weight", [](auto& p) { p.secure_aggregation.max_weight = 2; }},
      {"rotation", [](auto& p) { p.secure_aggregation.rotation = true; }},
      {"devices", [](auto& p) { p.secure_aggregation.max_devices = 2; }},
      {"dropout", [](auto& p) { p.secure_aggregation.dropout = 0.2; }},
      {"corruption", [](auto& p) { p.secure_aggregation.corruption = 0.2; }},
      {"subsample", [](auto& p) { p.secure_aggregation.subsample = 0.5; }},
      {"privacy's clip", [](auto& p) { p.privacy.clip = ClipKind::kFlat; }},
      {"privacy's norm", [](auto& p) { p.privacy.clip_norm = 1; }},
      {"noise", [](auto& p) { p.privacy.noise = DeviceNoise::kSkellam; }},
      {"noise's size", [](auto& p) { p.privacy.noise_stddev = 1; }},
  };
  return changes;
}

}  // namespace

TEST_CASE("a change of any field of a plan changes its digest, each to another one") {
  std::map<Digest, std::string> seen{{digest_of(a_plan()), "nothing"}};
  std::size_t changed = 0;
  for (const auto* changes :
       {&changes_of_training(), &changes_of_the_model(), &changes_of_privacy()}) {
    for (const auto& [name, change] : *changes) {
      TrainingPlan plan = a_plan();
      change(plan);
      REQUIRE(plan != a_plan());
      const auto [at, is_new] = seen.emplace(digest_of(plan), name);
      INFO(name << " looks like " << at->second);
      CHECK(is_new);
      ++changed;
    }
  }
  CHECK(seen.size() == changed + 1);
}

TEST_CASE("equal plans have equal digests") { CHECK(digest_of(a_plan()) == digest_of(a_plan())); }

TEST_CASE("what moves from one field of a plan to the next changes its digest") {
  const auto named = [](const std::string& strategy, const std::string& parameter) {
    TrainingPlan plan;
    plan.strategy = strategy;
    plan.strategy_parameters = {{parameter, 1}};
    return digest_of(plan);
  };
  CHECK(named("ab", "c") != named("a", "bc"));
  TrainingPlan one = a_plan();
  TrainingPlan other = a_plan();
  one.precision = "fp32b";
  one.compressor = "f16";
  other.precision = "fp32";
  other.compressor = "bf16";
  CHECK(digest_of(one) != digest_of(other));
}

TEST_CASE("the digest of a plan is the same on every machine and in every version") {
  // SHA-256 of the encoding that core/plan_digest.cpp describes, computed apart from it
  // (little-endian, 64-bit lengths):
  //   "covey training plan 1", "fedavg", [("q", 0.5)], input shape [4], layers [(dense = 1, 3, 0,
  //   0, same = 0, 0, 0, 0, 0.0f, 0, 0)], loss 1, target 1, initialisation 1, "", 1, 10, 0.1f, (1,
  //   0.9f, 0.9f, 0.999f, 1e-8f, 0.0f, 0.0f), seed 3, 0, "fp32", "fp32", 0.0, (0, 1, 0, 16, 1.0,
  //   0.0, 0, 0, 0.1, 0.05), (0, 0.0, 0, 0.0)
  TrainingPlan plan;
  plan.strategy = "fedavg";
  plan.strategy_parameters = {{"q", 0.5}};
  plan.model.input_shape = {4};
  plan.model.layers = {{.kind = LayerKind::kDense, .units = 3}};
  plan.seed = 3;
  CHECK(digest_of(plan).hex() ==
        "58c4f78849058141261d9b898780d7cf98bdd48ff2162b021ddf3fcaccf5165f");
}

}  // namespace covey
