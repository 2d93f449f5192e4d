#include "run_file_keys.hpp"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

namespace covey {
namespace {

// `member` of a RunConfig as a function, for the table below.
#define COVEY_AT(member) \
  [](RunConfig & c) -> auto& { return c.member; }

RunKey text(std::string_view table, std::string_view name, RunKey::Text member,
            int min_length = 0) {
  return {table, name, member, static_cast<double>(min_length)};
}

RunKey choice(std::string_view table, std::string_view name, RunKey::Text member,
              std::vector<std::string_view> choices) {
  RunKey key{table, name, member};
  key.choices = std::move(choices);
  return key;
}

// `member` of a RunConfig, an enumeration, as the pair of functions that a key takes.
#define COVEY_ENUM(member)                                                        \
  RunKey::Enumerated {                                                            \
    [](const RunConfig& c) { return static_cast<std::uint8_t>(c.member); },       \
        [](RunConfig& c, std::uint8_t value) {                                    \
          c.member = static_cast<std::remove_cvref_t<decltype(c.member)>>(value); \
        }                                                                         \
  }

RunKey enumerated(std::string_view table, std::string_view name, RunKey::Enumerated member,
                  std::vector<std::string_view> choices) {
  RunKey key{table, name, member};
  key.choices = std::move(choices);
  return key;
}

/// The names of an enumeration's values, which are 1, 2, ... `last`.
template <typename Enum>
std::vector<std::string_view> names_up_to(Enum last) {
  std::vector<std::string_view> names;
  for (std::uint8_t value = 1; value <= static_cast<std::uint8_t>(last); ++value) {
    names.push_back(to_string(static_cast<Enum>(value)));
  }
  return names;
}

RunKey flag(std::string_view table, std::string_view name, RunKey::Flag member) {
  return {table, name, member};
}

RunKey count(std::string_view table, std::string_view name, RunKey::Count member, double low,
             double high = std::numeric_limits<std::uint32_t>::max()) {
  return {table, name, member, low, high};
}

RunKey number(std::string_view table, std::string_view name, RunKey::Number member, double low = 0,
              double high = std::numeric_limits<double>::max()) {
  return {table, name, member, low, high};
}

RunKey single(std::string_view table, std::string_view name, RunKey::Single member, double low = 0,
              double high = std::numeric_limits<float>::max()) {
  return {table, name, member, low, high};
}

RunKey positive(RunKey key) {
  key.low_excluded = true;
  return key;
}

RunKey below_high(RunKey key) {
  key.high_excluded = true;
  return key;
}

// A time in seconds: about 30 years at most, far inside the 64-bit microseconds of Duration.
constexpr double kMaxSeconds = 1e9;
// Larger steps than this are a slip of the pen; the plan carries single precision.
constexpr double kMaxLearningRate = 1e6;
// exp(20) examples per device is far beyond what can be held.
constexpr double kMaxLogSize = 20;
constexpr double kMaxConcentration = 1e6;  // equal parts, for any practical purpose
// Characters of one example: far longer than a recurrent network learns from.
constexpr double kMaxSteps = 1 << 16;
// Of a secure sum's coordinate: one bit leaves no step between the clips, and a float has 24.
constexpr double kMinSumBits = 2;
constexpr double kMaxSumBits = 24;
// The adaptive clip norm moves by a factor of e^this a round at most; by more is no adapting.
constexpr double kMaxClipLearningRate = 10;
constexpr double kMinFrameBytes = 2048;
constexpr double kMinChunkBytes = 1024;
constexpr double kMaxModelHistory = 64;  // models and as many differences in memory
constexpr double kMaxFrameBytes = 1 << 30;

std::vector<std::string_view> preset_choices() {
  static const std::string names = preset_names();  // "logistic, 2nn, ..."
  std::vector<std::string_view> choices;
  for (std::size_t first = 0; first < names.size();) {
    const std::size_t end = std::min(names.find(", ", first), names.size());
    choices.push_back(std::string_view(names).substr(first, end - first));
    first = end + 2;
  }
  return choices;
}

// A device takes a few bytes in a simulation, and a connection in a deployment.
constexpr double kMaxClients = 1e7;

std::vector<RunKey> experiment_keys() {
  return {
      text("run", "name", COVEY_AT(name), 1),
      // TOML integers are signed 64-bit.
      {"run", "seed", RunKey::Seed(COVEY_AT(seed)), 0, 0x1p63},
      count("run", "num-rounds", COVEY_AT(num_rounds), 1),
      number("run", "target-accuracy", COVEY_AT(target_accuracy), 0, 1),
      flag("run", "stop-at-target", COVEY_AT(stop_at_target)),
      count("run", "eval-every", COVEY_AT(eval_every), 1),
      count("run", "fairness-every", COVEY_AT(fairness_every), 0),

      choice("model", "preset", COVEY_AT(model.preset), preset_choices()),
      {"model", "layers", RunKey::Layers(COVEY_AT(model.layers))},
      enumerated("model", "loss", COVEY_ENUM(model.loss), names_up_to(Loss::kBinaryCrossEntropy)),
      enumerated("model", "target", COVEY_ENUM(model.target), names_up_to(Target::kInput)),
      enumerated("model", "initialisation", COVEY_ENUM(model.initialisation),
                 names_up_to(Initialisation::kGlorotUniform)),
      text("model", "torchscript", COVEY_AT(model.torchscript), 1),
      choice("model", "device", COVEY_AT(model.device), {"cpu", "cuda"}),

      choice("data", "source", COVEY_AT(data.source),
             {"synthetic", "mnist", "csv", "leaf", "text"}),
      text("data", "path", COVEY_AT(data.path)),
      number("data", "alpha", COVEY_AT(data.alpha)),
      number("data", "beta", COVEY_AT(data.beta)),
      flag("data", "iid", COVEY_AT(data.iid)),
      number("data", "size-mean", COVEY_AT(data.size_mean), 0, kMaxLogSize),
      number("data", "size-spread", COVEY_AT(data.size_spread), 0, kMaxLogSize),
      count("data", "max-examples", COVEY_AT(data.max_examples), 0),
      choice("data", "on-demand", COVEY_AT(data.on_demand), {"auto", "always", "never"}),
      text("data", "label", COVEY_AT(data.label)),
      text("data", "user", COVEY_AT(data.user)),
      count("data", "steps", COVEY_AT(data.steps), 1, kMaxSteps),
      below_high(number("data", "test-fraction", COVEY_AT(data.test_fraction), 0, 1)),

      choice("partition", "scheme", COVEY_AT(partition.scheme),
             {"iid", "shards", "dirichlet", "power-law", "natural"}),
      count("partition", "clients", COVEY_AT(partition.clients), 0, kMaxClients),
      count("partition", "shards-per-client", COVEY_AT(partition.shards_per_client), 1),
      positive(number("partition", "concentration", COVEY_AT(partition.concentration), 0,
                      kMaxConcentration)),
      number("partition", "exponent", COVEY_AT(partition.exponent), 0, 100),
      choice("partition", "empty", COVEY_AT(partition.empty), {"refuse", "keep", "move"}),
  };
}

std::vector<RunKey> training_keys() {
  return {
      text("strategy", "name", COVEY_AT(strategy.name), 1),
      text("strategy", "plugin", COVEY_AT(strategy.plugin)),

      count("client", "local-epochs", COVEY_AT(client.local_epochs), 1),
      count("client", "batch-size", COVEY_AT(client.batch_size), 0),
      positive(
          number("client", "learning-rate", COVEY_AT(client.learning_rate), 0, kMaxLearningRate)),
      flag("client", "accept-partial-work", COVEY_AT(client.accept_partial_work)),
      choice("client", "precision", COVEY_AT(client.precision),
             {"fp32", "bf16", "qat-int8", "int8"}),
      {"client", "compressor", RunKey::Compressors(COVEY_AT(client.compressors))},
  };
}

std::vector<RunKey> optimizer_keys() {
  return {
      enumerated("client", "optimizer", COVEY_ENUM(client.optimizer.kind),
                 names_up_to(OptimizerKind::kAdamW)),
      // 1 would never forget a gradient.
      below_high(single("client", "momentum", COVEY_AT(client.optimizer.momentum), 0, 1)),
      below_high(single("client", "beta1", COVEY_AT(client.optimizer.beta1), 0, 1)),
      below_high(single("client", "beta2", COVEY_AT(client.optimizer.beta2), 0, 1)),
      positive(single("client", "epsilon", COVEY_AT(client.optimizer.epsilon), 0, 1)),
      single("client", "weight-decay", COVEY_AT(client.optimizer.weight_decay), 0,
             kMaxLearningRate),
      single("client", "clip-norm", COVEY_AT(client.optimizer.clip_norm)),
      enumerated("client", "lr-schedule", COVEY_ENUM(client.schedule.kind),
                 {"constant", "step", "exponential", "inverse", "cosine"}),
      positive(number("client", "lr-decay", COVEY_AT(client.schedule.decay), 0, 1)),
      count("client", "lr-step", COVEY_AT(client.schedule.step), 1),
      count("client", "lr-warmup", COVEY_AT(client.schedule.warmup), 0),
  };
}

std::vector<RunKey> selection_keys() {
  return {
      number("selection", "fraction-fit", COVEY_AT(selection.fraction_fit), 0, 1),
      count("selection", "min-fit-clients", COVEY_AT(selection.min_fit_clients), 1),
      count("selection", "min-available-clients", COVEY_AT(selection.min_available_clients), 0),
      choice("selection", "policy", COVEY_AT(selection.policy),
             {"uniform", "by-examples", "poisson", "by-availability", "oort", "power-of-choice"}),
      count("selection", "candidates", COVEY_AT(selection.candidates), 0),
      number("selection", "exploration", COVEY_AT(selection.exploration), 0, 1),
      positive(number("selection", "exploration-decay", COVEY_AT(selection.exploration_decay), 0, 1)),
      number("selection", "exploration-min", COVEY_AT(selection.exploration_min), 0, 1),
      number("selection", "round-penalty", COVEY_AT(selection.round_penalty), 0, 100),
      count("selection", "max-participations", COVEY_AT(selection.max_participations), 0),
      count("selection", "min-rounds-between", COVEY_AT(selection.min_rounds_between), 0),
      number("selection", "over-selection", COVEY_AT(selection.over_selection), 1, 100),
      positive(number("selection", "quorum", COVEY_AT(selection.quorum), 0, 1)),
      positive(number("selection", "timeout-s", COVEY_AT(selection.selection_timeout_s), 0,
                      kMaxSeconds)),
      positive(number("selection", "round-deadline-s", COVEY_AT(selection.round_deadline_s), 0,
                      kMaxSeconds)),
      number("selection", "retry-min-s", COVEY_AT(selection.retry_min_s), 0, kMaxSeconds),
      number("selection", "retry-max-s", COVEY_AT(selection.retry_max_s), 0, kMaxSeconds),
      count("selection", "max-waiting", COVEY_AT(selection.max_waiting), 1),
      positive(number("selection", "heartbeat-s", COVEY_AT(selection.heartbeat_s), 0, kMaxSeconds)),
      number("selection", "max-update-norm", COVEY_AT(selection.max_update_norm)),
      count("selection", "max-uploads", COVEY_AT(selection.max_uploads), 1),
      flag("selection", "require-charging", COVEY_AT(selection.require_charging)),
      flag("selection", "require-unmetered", COVEY_AT(selection.require_unmetered)),
  };
}

std::vector<RunKey> asynchronous_keys() {
  constexpr std::string_view kTable = "asynchronous";
  return {
      count(kTable, "buffer", COVEY_AT(asynchronous.buffer), 0),
      count(kTable, "concurrency", COVEY_AT(asynchronous.concurrency), 0),
      count(kTable, "max-staleness", COVEY_AT(asynchronous.max_staleness), 0),
      choice(kTable, "staleness", COVEY_AT(asynchronous.staleness),
             {"constant", "polynomial", "hinge"}),
      number(kTable, "exponent", COVEY_AT(asynchronous.exponent), 0, 100),
      number(kTable, "hinge-slope", COVEY_AT(asynchronous.hinge_slope)),
      number(kTable, "hinge-from", COVEY_AT(asynchronous.hinge_from)),
  };
}

std::vector<RunKey> privacy_keys() {
  constexpr std::string_view kSums = "secure-aggregation";
  return {
      choice(kSums, "mode", COVEY_AT(secure_aggregation.mode),
             {"off", "honest-but-curious", "malicious-server"}),
      choice(kSums, "cipher", COVEY_AT(secure_aggregation.cipher), {"aes-128-ctr", "chacha20"}),
      choice(kSums, "graph", COVEY_AT(secure_aggregation.graph), {"auto", "complete"}),
      count(kSums, "bits", COVEY_AT(secure_aggregation.bits), kMinSumBits, kMaxSumBits),
      positive(number(kSums, "clip", COVEY_AT(secure_aggregation.clip))),
      flag(kSums, "adaptive-clip", COVEY_AT(secure_aggregation.adaptive_clip)),
      positive(number(kSums, "max-weight", COVEY_AT(secure_aggregation.max_weight))),
      flag(kSums, "rotation", COVEY_AT(secure_aggregation.rotation)),
      below_high(number(kSums, "dropout", COVEY_AT(secure_aggregation.dropout), 0, 1)),
      below_high(number(kSums, "corruption", COVEY_AT(secure_aggregation.corruption), 0, 1)),

      choice("privacy", "mechanism", COVEY_AT(privacy.mechanism),
             {"none", "central-gaussian", "local-gaussian", "discrete-gaussian", "skellam",
              "dp-ftrl"}),
      number("privacy", "noise-multiplier", COVEY_AT(privacy.noise_multiplier)),
      number("privacy", "epsilon", COVEY_AT(privacy.epsilon)),
      positive(below_high(number("privacy", "delta", COVEY_AT(privacy.delta), 0, 1))),
      choice("privacy", "clip", COVEY_AT(privacy.clip), {"flat", "per-layer", "adaptive"}),
      positive(number("privacy", "clip-norm", COVEY_AT(privacy.clip_norm))),
      positive(below_high(
          number("privacy", "target-quantile", COVEY_AT(privacy.target_quantile), 0, 1))),
      positive(number("privacy", "clip-learning-rate", COVEY_AT(privacy.clip_learning_rate), 0,
                      kMaxClipLearningRate)),
      choice("privacy", "accountant", COVEY_AT(privacy.accountant), {"pld", "rdp", "zcdp"}),
      flag("privacy", "amplification", COVEY_AT(privacy.amplification)),
      count("privacy", "max-participations", COVEY_AT(privacy.max_participations), 0),
  };
}

}  // namespace

#define COVEY_RANGE(trait)                                                     \
  [](RunConfig& c) {                                                           \
    return TraitRange{c.fleet.traits.trait##_min, c.fleet.traits.trait##_max}; \
  }

std::vector<RunKey> trait_keys(std::string_view table) {
  constexpr double kMaxRate = 1e9;  // Mbit/s, GFLOP/s or MiB
  // A bit a second, a thousand operations a second: what is slower is a slip of the pen, and would
  // make times that no clock holds.
  constexpr double kMinRate = 1e-6;
  constexpr double kMaxPower = 1e6;
  const auto range = [table](std::string_view name, RunKey::Range member, double high,
                             double smallest_limit) {
    RunKey key{table, name, member, 0, high};
    key.smallest_limit = smallest_limit;
    return key;
  };
  return {
      range("latency-ms", COVEY_RANGE(latency_ms), 1e3 * kMaxSeconds, 0),
      range("up-mbit-s", COVEY_RANGE(up_mbit_s), kMaxRate, kMinRate),
      range("down-mbit-s", COVEY_RANGE(down_mbit_s), kMaxRate, kMinRate),
      positive(range("gflops", COVEY_RANGE(gflops), kMaxRate, kMinRate)),
      range("memory-mib", COVEY_RANGE(memory_mib), kMaxRate, kMinRate),
      choice(table, "availability", COVEY_AT(fleet.traits.availability),
             {"always", "nightly", "flaky"}),
      number(table, "battery-wh", COVEY_AT(fleet.traits.battery_wh), 0, kMaxPower),
      number(table, "compute-watts", COVEY_AT(fleet.traits.compute_watts), 0, kMaxPower),
      number(table, "radio-joules-per-mb", COVEY_AT(fleet.traits.radio_joules_per_mb), 0,
             kMaxPower),
  };
}

#undef COVEY_RANGE

namespace {

std::vector<RunKey> fleet_keys() {
  std::vector<RunKey> keys = {
      choice("fleet", "mix", COVEY_AT(fleet.mix), {"", "phones", "raspberry-pi", "mixed"}),
  };
  for (RunKey& key : trait_keys("fleet")) keys.push_back(std::move(key));
  const std::vector<RunKey> others = {
      text("fleet", "capacity-trace", COVEY_AT(fleet.capacity_trace)),
      text("fleet", "availability-trace", COVEY_AT(fleet.availability_trace)),
      number("fleet", "start-hour", COVEY_AT(fleet.start_hour), 0, 24),
      number("fleet", "max-hours", COVEY_AT(fleet.max_hours), 0, kMaxSeconds / 3600),
      number("fleet", "dropout", COVEY_AT(fleet.dropout), 0, 1),
      choice("fleet", "dropout-at", COVEY_AT(fleet.dropout_at),
             {"training", "sharing", "masking", "unmasking", "any"}),
      number("fleet", "stragglers", COVEY_AT(fleet.stragglers), 0, 1),
      flag("fleet", "codec", COVEY_AT(fleet.codec)),
      flag("fleet", "keep-model", COVEY_AT(fleet.keep_model)),
  };
  keys.insert(keys.end(), others.begin(), others.end());
  return keys;
}

std::vector<RunKey> fault_keys() {
  const auto chance = [](std::string_view name, RunKey::Number member) {
    return number("faults", name, member, 0, 1);
  };
  return {
      {"faults", "seed", RunKey::Seed(COVEY_AT(faults.seed)), 0, 0x1p63},
      number("faults", "until-s", COVEY_AT(faults.until_s), 0, kMaxSeconds),
      count("faults", "until-round", COVEY_AT(faults.until_round), 0),
      chance("delay", COVEY_AT(faults.delay)),
      number("faults", "delay-s", COVEY_AT(faults.delay_s), 0, kMaxSeconds),
      chance("drop", COVEY_AT(faults.drop)),
      chance("duplicate", COVEY_AT(faults.duplicate)),
      chance("reorder", COVEY_AT(faults.reorder)),
      chance("truncate", COVEY_AT(faults.truncate)),
      chance("corrupt", COVEY_AT(faults.corrupt)),
      chance("cut", COVEY_AT(faults.cut)),
      chance("device-crash", COVEY_AT(faults.device_crash)),
      chance("server-crash", COVEY_AT(faults.server_crash)),
      chance("commit-crash", COVEY_AT(faults.commit_crash)),
      chance("disk-full", COVEY_AT(faults.disk_full)),
      number("faults", "clock-skew", COVEY_AT(faults.clock_skew), 0, 0.5),

      choice("attack", "kind", COVEY_AT(attack.kind),
             {"none", "label-flip", "sign-flip", "gaussian", "alie", "ipm", "backdoor"}),
      number("attack", "share", COVEY_AT(attack.share), 0, 1),
      number("attack", "scale", COVEY_AT(attack.scale), 0, 1e9),
      count("attack", "target-label", COVEY_AT(attack.target_label), 0),
  };
}

std::vector<RunKey> server_keys() {
  return {
      text("server", "listen", COVEY_AT(server.listen), 1),
      count("server", "max-frame-bytes", COVEY_AT(server.max_frame_bytes), kMinFrameBytes,
            kMaxFrameBytes),
      count("server", "chunk-bytes", COVEY_AT(server.chunk_bytes), kMinChunkBytes, kMaxFrameBytes),
      count("server", "max-connections", COVEY_AT(server.max_connections), 1),
      count("server", "keep-snapshots", COVEY_AT(server.keep_snapshots), 1),
      count("server", "model-history", COVEY_AT(server.model_history), 0, kMaxModelHistory),
      text("server", "model-compressor", COVEY_AT(server.model_compressor), 1),
  };
}

#undef COVEY_AT
#undef COVEY_ENUM

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::span<const RunKey> run_keys() {
  static const std::vector<RunKey> keys = [] {
    std::vector<RunKey> all = experiment_keys();
    for (auto part : {training_keys(), optimizer_keys(), selection_keys(), asynchronous_keys(),
                      privacy_keys(), fleet_keys(), fault_keys(), server_keys()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return keys;
}

const RunKey* find_run_key(std::string_view table, std::string_view name) {
  const auto keys = run_keys();
  const auto found = std::ranges::find_if(
      keys, [&](const RunKey& key) { return key.table == table && key.name == name; });
  return found == keys.end() ? nullptr : &*found;
}

std::string nearest_name(std::string_view name, std::span<const std::string> known) {
  std::string nearest;
  std::size_t smallest = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < smallest) {
      smallest = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace covey
