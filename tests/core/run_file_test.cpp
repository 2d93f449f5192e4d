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

// Every key away from its default.
constexpr const char* kEverything = R"(
[run]
name = "every \"key\""
seed = 9007199254740993
num-rounds = 7
target-accuracy = 0.97
stop-at-target = true
eval-every = 3
[model]
preset = "2nn"
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
test-fraction = 0.3
[partition]
scheme = "natural"
clients = 40
shards-per-client = 5
concentration = 0.05
exponent = 2.5
[strategy]
name = "fedprox"
plugin = "./libmine.so"
proximal-mu = 0.001
[client]
local-epochs = 20
batch-size = 0
learning-rate = 0.03
accept-partial-work = true
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
[fleet]
latency-ms = [10, 200.5]
up-mbit-s = 8
down-mbit-s = [1, 50]
gflops = [0.5, 4]
dropout = 0.1
stragglers = 0.9
codec = true
[server]
listen = "0.0.0.0:9000"
max-frame-bytes = 2097152
chunk-bytes = 131072
max-connections = 12
keep-snapshots = 9
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
  CHECK(config.fleet.latency_ms_min == 10);
  CHECK(config.fleet.latency_ms_max == 200.5);
  CHECK(config.fleet.up_mbit_s_min == 8);
  CHECK(config.fleet.up_mbit_s_max == 8);
  CHECK(config.fleet.down_mbit_s_min == 1);
  CHECK(config.fleet.down_mbit_s_max == 50);
  CHECK(config.fleet.gflops_min == 0.5);
  CHECK(config.fleet.gflops_max == 4);
  CHECK(config.fleet.dropout == 0.1);
  CHECK(config.fleet.stragglers == 0.9);
  CHECK(config.fleet.codec);
  CHECK(config.server.listen == "0.0.0.0:9000");
  CHECK(config.server.max_frame_bytes == 2097152);
  CHECK(config.server.chunk_bytes == 131072);
  CHECK(config.server.max_connections == 12);
  CHECK(config.server.keep_snapshots == 9);
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
  CHECK(back.fleet.latency_ms_max == config.fleet.latency_ms_max);
  CHECK(back.strategy.parameters == config.strategy.parameters);
}

TEST_CASE("the written run file has a line for every key") {
  const std::string text = to_toml(parsed(kEverything));
  std::size_t lines = 0;
  for (const char c : text) lines += c == '=' ? 1 : 0;
  std::size_t expected = 0;
  for (const char* c = kEverything; *c != '\0'; ++c) expected += *c == '=' ? 1 : 0;
  CHECK(lines == expected + 2);  // client.precision and client.compressor have one choice
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

TEST_CASE("numbers of [strategy] are the strategy's parameters, by name") {
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
  CHECK(config.fleet.latency_ms_max == 2);
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
