#include <catch2/catch.hpp>
#include <covey/run_config.hpp>
#include <string>
#include <utility>
#include <vector>

namespace covey {
namespace {

RunConfig parsed(const std::string& text, const std::vector<std::string>& overrides = {}) {
  auto config = parse_run_text(text, "run.toml", overrides);
  if (!config.ok()) FAIL(config.error().message);
  return std::move(config).value();
}

// Every key away from its default, but for privacy's (run_file_privacy_test.cpp).
constexpr const char* kEverything = R"(
[run]
name = "every \"key\""
seed = 9007199254740993
num-rounds = 7
target-accuracy = 0.97
stop-at-target = true
eval-every = 3
fairness-every = 5
[model]
preset = "2nn"
initialisation = "he-normal"
[data]
source = "csv"
path = "tables/a.csv"
alpha = 0.1
beta = 0.25
iid = true
size-mean = 3.5
size-spread = 1
max-examples = 400
label = "digit"
user = "writer"
steps = 20
test-fraction = 0.3
[partition]
scheme = "natural"
clients = 40
shards-per-client = 5
concentration = 0.05
exponent = 2.5
empty = "move"
[strategy]
name = "fedprox"
plugin = "./libmine.so"
proximal-mu = 0.001
[client]
local-epochs = 20
batch-size = 0
learning-rate = 0.03
accept-partial-work = true
precision = "int8"
compressor = "int8"
optimizer = "adamw"
beta1 = 0.85
beta2 = 0.95
epsilon = 1e-6
weight-decay = 0.01
clip-norm = 2.5
lr-schedule = "step"
lr-decay = 0.5
lr-step = 4
lr-warmup = 3
[selection]
fraction-fit = 0.2
min-fit-clients = 4
min-available-clients = 30
policy = "by-examples"
over-selection = 1.3
quorum = 0.8
timeout-s = 5.5
round-deadline-s = 90
retry-min-s = 1
retry-max-s = 2
max-waiting = 11
heartbeat-s = 3
max-update-norm = 12.5
max-uploads = 2
require-charging = true
require-unmetered = true
max-participations = 9
min-rounds-between = 2
[asynchronous]
buffer = 0
[secure-aggregation]
mode = "off"
[privacy]
mechanism = "none"
[fleet]
latency-ms = [10, 200.5]
up-mbit-s = 8
down-mbit-s = [1, 50]
gflops = [0.5, 4]
mix = ""
memory-mib = [256, 512]
availability = "flaky"
battery-wh = 15
compute-watts = 2.5
radio-joules-per-mb = 4
capacity-trace = ""
availability-trace = ""
start-hour = 20.5
max-hours = 48
dropout = 0.1
dropout-at = "training"
stragglers = 0.9
codec = true
keep-model = true
[faults]
seed = 12
until-s = 100
until-round = 6
delay = 0.01
delay-s = 20
drop = 0.02
duplicate = 0.03
reorder = 0.04
truncate = 0.05
corrupt = 0.06
cut = 0.07
device-crash = 0.08
server-crash = 0.09
commit-crash = 0.11
disk-full = 0.12
clock-skew = 0.13
[attack]
kind = "none"
[server]
listen = "0.0.0.0:9000"
max-frame-bytes = 2097152
chunk-bytes = 131072
max-connections = 12
keep-snapshots = 9
model-history = 5
model-compressor = "off"
)";

}  // namespace

TEST_CASE("an empty run file gives the defaults") {
  CHECK(to_toml(parsed("")) == to_toml(RunConfig{}));
  CHECK(parsed("").model.preset == "logistic");
}

TEST_CASE("every key of a run file reaches its member") {
  const RunConfig config = parsed(kEverything);
  CHECK(config.name == "every \"key\"");
  CHECK(config.seed == 9007199254740993u);  // 2^53 + 1 is no double
  CHECK(config.num_rounds == 7);
  CHECK(config.target_accuracy == 0.97);
  CHECK(config.stop_at_target);
  CHECK(config.eval_every == 3);
  CHECK(config.model.preset == "2nn");
  CHECK(config.model.initialisation == Initialisation::kHeNormal);
  CHECK(config.data.steps == 20);
  CHECK(config.client.precision == "int8");
  CHECK(config.client.compressors == std::vector<std::string>{"int8"});
  CHECK(config.client.optimizer == OptimizerSpec{.kind = OptimizerKind::kAdamW,
                                                 .beta1 = 0.85f,
                                                 .beta2 = 0.95f,
                                                 .epsilon = 1e-6f,
                                                 .weight_decay = 0.01f,
                                                 .clip_norm = 2.5f});
  CHECK(config.client.schedule ==
        LearningRateSchedule{.kind = ScheduleKind::kStep, .decay = 0.5, .step = 4, .warmup = 3});
  CHECK(config.data.source == "csv");
  CHECK(config.data.path == "tables/a.csv");
  CHECK(config.data.alpha == 0.1);
  CHECK(config.data.beta == 0.25);
  CHECK(config.data.iid);
  CHECK(config.data.size_mean == 3.5);
  CHECK(config.data.size_spread == 1);  // a whole number where a number is expected
  CHECK(config.data.max_examples == 400);
  CHECK(config.data.label == "digit");
  CHECK(config.data.user == "writer");
  CHECK(config.data.test_fraction == 0.3);
  CHECK(config.partition.scheme == "natural");
  CHECK(config.partition.clients == 40);
  CHECK(config.partition.shards_per_client == 5);
  CHECK(config.partition.concentration == 0.05);
  CHECK(config.partition.exponent == 2.5);
  CHECK(config.strategy.name == "fedprox");
  CHECK(config.strategy.plugin == "./libmine.so");
  CHECK(config.client.local_epochs == 20);
  CHECK(config.client.batch_size == 0);
  CHECK(config.client.learning_rate == 0.03);
  CHECK(config.client.accept_partial_work);
}

TEST_CASE("every key of selection, fleet and server reaches its member") {
  const RunConfig config = parsed(kEverything);
  CHECK(config.selection.fraction_fit == 0.2);
  CHECK(config.selection.min_fit_clients == 4);
  CHECK(config.selection.min_available_clients == 30);
  CHECK(config.selection.policy == "by-examples");
  CHECK(config.selection.over_selection == 1.3);
  CHECK(config.selection.quorum == 0.8);
  CHECK(config.selection.selection_timeout_s == 5.5);
  CHECK(config.selection.round_deadline_s == 90);
  CHECK(config.selection.retry_min_s == 1);
  CHECK(config.selection.retry_max_s == 2);
  CHECK(config.selection.max_waiting == 11);
  CHECK(config.selection.heartbeat_s == 3);
  CHECK(config.selection.max_update_norm == 12.5);
  CHECK(config.selection.max_uploads == 2);
  CHECK(config.selection.require_charging);
  CHECK(config.selection.require_unmetered);
  CHECK(config.fleet.traits.latency_ms_min == 10);
  CHECK(config.fleet.traits.latency_ms_max == 200.5);
  CHECK(config.fleet.traits.up_mbit_s_min == 8);
  CHECK(config.fleet.traits.up_mbit_s_max == 8);
  CHECK(config.fleet.traits.down_mbit_s_min == 1);
  CHECK(config.fleet.traits.down_mbit_s_max == 50);
  CHECK(config.fleet.traits.gflops_min == 0.5);
  CHECK(config.fleet.traits.gflops_max == 4);
  CHECK(config.fleet.dropout == 0.1);
  CHECK(config.fleet.stragglers == 0.9);
  CHECK(config.fleet.codec);
  CHECK(config.fleet.traits.memory_mib_min == 256);
  CHECK(config.fleet.traits.memory_mib_max == 512);
  CHECK(config.fleet.traits.availability == "flaky");
  CHECK(config.fleet.traits.battery_wh == 15);
  CHECK(config.fleet.traits.compute_watts == 2.5);
  CHECK(config.fleet.traits.radio_joules_per_mb == 4);
  CHECK(config.fleet.start_hour == 20.5);
  CHECK(config.fleet.max_hours == 48);
  CHECK(config.server.listen == "0.0.0.0:9000");
  CHECK(config.server.max_frame_bytes == 2097152);
  CHECK(config.server.chunk_bytes == 131072);
  CHECK(config.server.max_connections == 12);
  CHECK(config.server.keep_snapshots == 9);
  CHECK(config.server.model_history == 5);
  CHECK(config.fleet.keep_model);
  CHECK(config.server.model_compressor == "off");
  CHECK(parsed("[server]\nmodel-compressor = \"int8\"").server.model_compressor == "int8");
}

TEST_CASE("every key of faults reaches its member") {
  const RunConfig config = parsed(kEverything);
  CHECK(config.faults.seed == 12);
  CHECK(config.faults.until_s == 100);
  CHECK(config.faults.until_round == 6);
  CHECK(config.faults.delay == 0.01);
  CHECK(config.faults.delay_s == 20);
  CHECK(config.faults.drop == 0.02);
  CHECK(config.faults.duplicate == 0.03);
  CHECK(config.faults.reorder == 0.04);
  CHECK(config.faults.truncate == 0.05);
  CHECK(config.faults.corrupt == 0.06);
  CHECK(config.faults.cut == 0.07);
  CHECK(config.faults.device_crash == 0.08);
  CHECK(config.faults.server_crash == 0.09);
  CHECK(config.faults.commit_crash == 0.11);
  CHECK(config.faults.disk_full == 0.12);
  CHECK(config.faults.clock_skew == 0.13);
  CHECK(config.fairness_every == 5);
  CHECK(config.partition.empty == "move");
  CHECK(config.selection.max_participations == 9);
  CHECK(config.selection.min_rounds_between == 2);
}

TEST_CASE("what is written as TOML reads back as the same configuration") {
  const RunConfig config = parsed(kEverything);
  const std::string text = to_toml(config);
  const RunConfig back = parsed(text);
  CHECK(to_toml(back) == text);
  // to_toml alone cannot show that it writes everything: no value here is a default, so a key that
  // is not written comes back different.
  CHECK(back.name == config.name);
  CHECK(back.seed == config.seed);
  CHECK(back.client.learning_rate == config.client.learning_rate);
  CHECK(back.fleet.traits.latency_ms_max == config.fleet.traits.latency_ms_max);
  CHECK(back.fleet.traits == config.fleet.traits);
  CHECK(back.strategy.parameters == config.strategy.parameters);
  CHECK(back.model.initialisation == config.model.initialisation);
  CHECK(back.client.optimizer == config.client.optimizer);
  CHECK(back.client.schedule == config.client.schedule);
}

TEST_CASE("the written run file has a line for every key") {
  const std::string text = to_toml(parsed(kEverything));
  std::size_t lines = 0;
  for (const char c : text) lines += c == '=' ? 1 : 0;
  std::size_t expected = 0;
  for (const char* c = kEverything; *c != '\0'; ++c) expected += *c == '=' ? 1 : 0;
  CHECK(lines == expected);
}

TEST_CASE("strings with quotes, backslashes and control characters survive writing") {
  RunConfig config;
  config.data.path = "a \"b\" \\ c\t\x01\n\xc3\xbc";
  CHECK(parsed(to_toml(config)).data.path == config.data.path);
}

TEST_CASE("a model is given layer by layer") {
  const std::string text = R"([model]
layers = [{type="conv2d", filters=32, kernel=5}, {type="relu"}, {type="max-pool2d", kernel=2},
          {type="flatten"}, {type="dense", units=10}])";
  const std::vector<LayerSpec> expected{{LayerKind::kConv2d, 32, 5},
                                        {LayerKind::kRelu, 0, 0},
                                        {LayerKind::kMaxPool2d, 0, 2},
                                        {LayerKind::kFlatten, 0, 0},
                                        {LayerKind::kDense, 10, 0}};
  const RunConfig config = parsed(text);
  CHECK(config.model.layers == expected);
  CHECK(config.model.preset.empty());
  CHECK(parsed(to_toml(config)).model.layers == expected);
}

TEST_CASE("every type of layer is read with all its fields and written again") {
  const std::string text = R"([model]
loss = "bce"
target = "input"
initialisation = "glorot-uniform"
layers = [
  {type="embedding", vocabulary=258, units=8},
  {type="conv2d", units=32, kernel=5, stride=2, padding="valid"},
  {type="depthwise-conv2d", kernel=3, stride=1, padding="same"},
  {type="max-pool2d", kernel=3, stride=2}, {type="average-pool2d", kernel=2, stride=1},
  {type="global-average-pool"}, {type="flatten"},
  {type="lstm", units=256, peephole=true, last-only=true}, {type="gru", units=16, last-only=true},
  {type="batch-norm"}, {type="group-norm", groups=8}, {type="layer-norm"},
  {type="dropout", rate=0.5}, {type="dropout", rate=0}, {type="relu"}, {type="gelu"},
  {type="tanh"}, {type="sigmoid"}, {type="add", back=3}, {type="dense", units=10}])";
  using enum LayerKind;
  const std::vector<LayerSpec> expected{
      {.kind = kEmbedding, .units = 8, .vocabulary = 258},
      {.kind = kConv2d, .units = 32, .kernel = 5, .stride = 2, .padding = Padding::kValid},
      {.kind = kDepthwiseConv2d, .kernel = 3, .stride = 1},
      {.kind = kMaxPool2d, .kernel = 3, .stride = 2},
      {.kind = kAveragePool2d, .kernel = 2, .stride = 1},
      {.kind = kGlobalAveragePool},
      {.kind = kFlatten},
      {.kind = kLstm, .units = 256, .peephole = true, .last_only = true},
      {.kind = kGru, .units = 16, .last_only = true},
      {.kind = kBatchNorm},
      {.kind = kGroupNorm, .groups = 8},
      {.kind = kLayerNorm},
      {.kind = kDropout, .rate = 0.5f},
      {.kind = kDropout},
      {.kind = kRelu},
      {.kind = kGelu},
      {.kind = kTanh},
      {.kind = kSigmoid},
      {.kind = kAdd, .back = 3},
      {.kind = kDense, .units = 10}};
  const RunConfig config = parsed(text);
  CHECK(config.model.layers == expected);
  CHECK(config.model.loss == Loss::kBinaryCrossEntropy);
  CHECK(config.model.target == Target::kInput);
  CHECK(config.model.initialisation == Initialisation::kGlorotUniform);
  const RunConfig back = parsed(to_toml(config));
  CHECK(back.model.layers == expected);
  CHECK(back.model.loss == config.model.loss);
  CHECK(back.model.target == config.model.target);
  CHECK(back.model.initialisation == config.model.initialisation);
}

TEST_CASE("a TorchScript file takes the place of preset and layers") {
  const RunConfig config = parsed("[model]\ntorchscript = \"net.pt\"\nloss = \"mse\"\n");
  CHECK(config.model.torchscript == "net.pt");
  CHECK(config.model.preset.empty());
  const RunConfig back = parsed(to_toml(config));
  CHECK(back.model.torchscript == "net.pt");
  CHECK(back.model.loss == Loss::kMeanSquaredError);
  const RunConfig preset = parsed(to_toml(config), {"model.preset=cnn"});
  CHECK(preset.model.torchscript.empty());
  CHECK(preset.model.loss == Loss::kCrossEntropy);
}

TEST_CASE("numbers of the strategy table are its parameters, by name") {
  using Parameters = std::vector<std::pair<std::string, double>>;
  const RunConfig config =
      parsed("[strategy]\nname=\"mine\"\nz=1\nproximal-mu=0.5\n\"two words\"=-3\n");
  CHECK(config.strategy.parameters ==
        Parameters{{"proximal-mu", 0.5}, {"two words", -3}, {"z", 1}});
  CHECK(parsed(to_toml(config)).strategy.parameters == config.strategy.parameters);
}

TEST_CASE("overrides are applied on top of the file") {
  const RunConfig config =
      parsed(kEverything, {"client.learning-rate=0.05", "run.seed = 3", "strategy.proximal-mu=2",
                           "strategy.q=1", "fleet.latency-ms=[1, 2]", "fleet.codec=false"});
  CHECK(config.client.learning_rate == 0.05);
  CHECK(config.seed == 3);
  CHECK(config.strategy.parameters ==
        std::vector<std::pair<std::string, double>>{{"proximal-mu", 2}, {"q", 1}});
  CHECK(config.fleet.traits.latency_ms_max == 2);
  CHECK_FALSE(config.fleet.codec);
}

TEST_CASE("the last of several overrides of a key counts") {
  CHECK(parsed("", {"run.seed=1", "run.seed=2"}).seed == 2);
}

TEST_CASE("an override's string needs no quotes") {
  const RunConfig config = parsed("", {"data.path=./my data/x.csv", "run.name=7",
                                       "data.label=\"quoted\"", "selection.policy=by-examples"});
  CHECK(config.data.path == "./my data/x.csv");
  CHECK(config.name == "7");
  CHECK(config.data.label == "quoted");
  CHECK(config.selection.policy == "by-examples");
}

TEST_CASE("an override of preset or layers replaces the other") {
  const std::string layers = "[model]\nlayers = [{type=\"dense\", units=10}]\n";
  const RunConfig preset = parsed(layers, {"model.preset=cnn"});
  CHECK(preset.model.preset == "cnn");
  CHECK(preset.model.layers.empty());
  const RunConfig given = parsed("", {"model.layers=[{type=\"dense\", units=4}]"});
  CHECK(given.model.preset.empty());
  CHECK(given.model.layers.size() == 1);
}

}  // namespace covey
