#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <covey/model_spec.hpp>
#include <covey/optimizer.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>

/// A run file as values: the experiment whole. The same file drives `simulate`, `server` and `client`.
/// Defaults here are the defaults of the TOML keys (in comments, "table.key").
namespace covey {

struct ModelConfig {
  std::string preset = "logistic";  ///< model.preset: a name of preset_model; "" when layers are given
  std::vector<LayerSpec> layers;    ///< model.layers = [{type="dense", units=200}, {type="relu"}, ...]
  Loss loss = Loss::kCrossEntropy;  ///< model.loss = "cross-entropy" | "mse" | "bce" (no preset)
  Target target = Target::kLabel;   ///< model.target = "label" | "input" (no preset)
  Initialisation initialisation = Initialisation::kFanIn;  ///< model.initialisation = "fan-in" | ...
  std::string torchscript;          ///< model.torchscript: a TorchScript file, instead of layers
  std::string device = "cpu";       ///< model.device = "cpu" | "cuda", of a TorchScript file
};

struct DataConfig {
  std::string source = "synthetic";  ///< data.source: synthetic | mnist | csv | leaf | text
  std::string path;                  ///< data.path: file or directory; relative to --data / COVEY_DATA
  double alpha = 1;                  ///< data.alpha  (synthetic)
  double beta = 1;                   ///< data.beta   (synthetic)
  bool iid = false;                  ///< data.iid    (synthetic: shared model, v = 0)
  double size_mean = 4;              ///< data.size-mean: n_k = floor(LogNormal(mean, spread)) + 50
  double size_spread = 2;            ///< data.size-spread
  std::uint32_t max_examples = 0;    ///< data.max-examples per device of the synthetic set; 0: no cap
  std::string label = "label";       ///< data.label: CSV column of the class; "": no labels
  std::string user;                  ///< data.user: CSV column naming the owner ("natural" partition)
  std::uint32_t steps = 80;          ///< data.steps: characters of one example (text)
  double test_fraction = 0.2;        ///< data.test-fraction held out per device, where no test set exists
};

struct PartitionConfig {
  std::string scheme = "iid";        ///< partition.scheme: iid | shards | dirichlet | power-law | natural
  std::uint32_t clients = 100;       ///< partition.clients (natural and leaf: 0 means all users)
  std::uint32_t shards_per_client = 2;  ///< partition.shards-per-client
  double concentration = 0.5;        ///< partition.concentration (Dirichlet)
  double exponent = 1.5;             ///< partition.exponent (power law)
};

struct StrategyConfig {
  std::string name = "fedavg";       ///< strategy.name
  std::string plugin;                ///< strategy.plugin: shared library that brings the strategy
  /// every other key of [strategy]: {"proximal-mu", 1.0}, {"q", 1.0}
  std::vector<std::pair<std::string, double>> parameters;
};

/// How the learning rate changes from round to round, t = 1 the first. Values do not travel: the plan
/// carries each round's rate.
enum class ScheduleKind : std::uint8_t {
  kConstant = 1,
  kStep = 2,         ///< lr * decay^floor((t - 1) / step)
  kExponential = 3,  ///< lr * decay^(t - 1)
  kInverse = 4,      ///< lr / (1 + decay * (t - 1))
  kCosine = 5,       ///< lr * (1 + cos(pi * (t - 1) / num_rounds)) / 2
};

struct LearningRateSchedule {
  ScheduleKind kind = ScheduleKind::kConstant;  ///< client.lr-schedule
  double decay = 0.99;                          ///< client.lr-decay
  std::uint32_t step = 10;                      ///< client.lr-step, rounds
  std::uint32_t warmup = 0;                     ///< client.lr-warmup: rounds of linear growth to lr
  bool operator==(const LearningRateSchedule&) const = default;
};

struct ClientConfig {
  std::uint32_t local_epochs = 1;      ///< client.local-epochs
  std::uint32_t batch_size = 10;       ///< client.batch-size; 0: full batch
  double learning_rate = 0.1;          ///< client.learning-rate
  bool accept_partial_work = false;    ///< client.accept-partial-work
  OptimizerSpec optimizer;             ///< client.optimizer = "sgd" | ..., .momentum, .beta1, .beta2,
                                       ///< .epsilon, .weight-decay, .clip-norm
  LearningRateSchedule schedule;       ///< client.lr-schedule, .lr-decay, .lr-step, .lr-warmup
  std::string precision = "fp32";      ///< client.precision: fp32 | bf16 | qat-int8 | int8
  std::string compressor = "auto";     ///< client.compressor: auto | fp32 | bf16 | int8; auto: as the
                                       ///< precision keeps its weights
};

struct SelectionConfig {
  double fraction_fit = 0.1;             ///< selection.fraction-fit of min-available-clients (C)
  std::uint32_t min_fit_clients = 1;     ///< selection.min-fit-clients: goal is max(this, fraction)
  std::uint32_t min_available_clients = 0;  ///< selection.min-available-clients; 0: all of partition.clients
  std::string policy = "uniform";        ///< selection.policy: uniform | by-examples | poisson
  double over_selection = 1.0;           ///< selection.over-selection: select goal times this (1.3)
  double quorum = 1.0;                   ///< selection.quorum: share of the goal that must report;
                                         ///< who declines is not waited for
  double selection_timeout_s = 60;       ///< selection.timeout-s: then start with who is there, if >= quorum
  double round_deadline_s = 600;         ///< selection.round-deadline-s
  double retry_min_s = 0;                ///< selection.retry-min-s  (window after a report)
  double retry_max_s = 0;                ///< selection.retry-max-s
  std::uint32_t max_waiting = 20000;     ///< selection.max-waiting connections held for selection
  double heartbeat_s = 10;               ///< selection.heartbeat-s; silent for 3 of them: dropped out
  double max_update_norm = 0;            ///< selection.max-update-norm; 0: no limit
  std::uint32_t max_uploads = 16;        ///< selection.max-uploads at the same time
  bool require_charging = false;         ///< selection.require-charging
  bool require_unmetered = false;        ///< selection.require-unmetered
};

/// How updates are summed so that the server sees only the sum.
struct SecureAggregationConfig {
  std::string mode = "off";  ///< secure-aggregation.mode: off | honest-but-curious | malicious-server
  std::string cipher = "aes-128-ctr";  ///< secure-aggregation.cipher: aes-128-ctr | chacha20
  std::string graph = "auto";          ///< secure-aggregation.graph: auto | complete
  std::uint32_t bits = 16;     ///< secure-aggregation.bits of a coordinate, 2..24
  double clip = 1;             ///< secure-aggregation.clip: largest |coordinate| of an update
  double max_weight = 0;       ///< secure-aggregation.max-weight: larger ones count as this; has to be
                               ///< given, except under differential privacy (all weigh the same)
  bool rotation = false;       ///< secure-aggregation.rotation before clipping (evens coordinates out)
  double dropout = 0.1;        ///< secure-aggregation.dropout that a round must survive
  double corruption = 0.05;    ///< secure-aggregation.corruption: devices working with the server
};

/// Differential privacy: per device, over the whole run.
struct PrivacyConfig {
  std::string mechanism = "none";  ///< privacy.mechanism: none | central-gaussian | local-gaussian |
                                   ///< discrete-gaussian | skellam | dp-ftrl
  double noise_multiplier = 0;  ///< privacy.noise-multiplier z; 0: what privacy.epsilon takes
  double epsilon = 0;           ///< privacy.epsilon: the run stops before it spends more; 0: no budget
  double delta = 1e-5;          ///< privacy.delta
  std::string clip = "flat";    ///< privacy.clip: flat | per-layer | adaptive
  double clip_norm = 0.1;       ///< privacy.clip-norm S (adaptive: its first value)
  double target_quantile = 0.5;     ///< privacy.target-quantile of norms below S (adaptive)
  double clip_learning_rate = 0.2;  ///< privacy.clip-learning-rate (adaptive)
  std::string accountant = "pld";   ///< privacy.accountant: pld | rdp | zcdp
  bool amplification = true;  ///< privacy.amplification: count on the draw of each round's devices
  std::uint32_t max_participations = 0;  ///< privacy.max-participations of a device in the run, which
                                         ///< dp-ftrl counts with; 0: no limit
};

/// Virtual devices; the simulator only. Each trait is drawn per device: uniform in [min, max].
struct FleetConfig {
  double latency_ms_min = 20, latency_ms_max = 20;         ///< fleet.latency-ms = 20 or [min, max]
  double up_mbit_s_min = 0, up_mbit_s_max = 0;             ///< fleet.up-mbit-s; 0: unlimited
  double down_mbit_s_min = 0, down_mbit_s_max = 0;         ///< fleet.down-mbit-s
  double gflops_min = 1, gflops_max = 1;                   ///< fleet.gflops: compute speed
  double dropout = 0;            ///< fleet.dropout: chance that a selected device fails in a round
  std::string dropout_at = "training";  ///< fleet.dropout-at: training | sharing | masking | unmasking |
                                 ///< any: in which step of a secure sum; behind what it last sent
  double stragglers = 0;         ///< fleet.stragglers: share of selected devices that manage only x epochs,
                                 ///< x uniform in [1, E] (Li et al. 2020); reported only with
                                 ///< client.accept-partial-work, else the device misses the round
  bool codec = false;            ///< fleet.codec: send every message through the wire codec and back
};

struct ServerConfig {
  std::string listen = "127.0.0.1:7443";   ///< server.listen
  std::uint32_t max_frame_bytes = 1 << 20; ///< server.max-frame-bytes
  std::uint32_t chunk_bytes = 256 * 1024;  ///< server.chunk-bytes
  std::uint32_t max_connections = 20000;   ///< server.max-connections
  std::uint32_t keep_snapshots = 3;        ///< server.keep-snapshots in the store
};

struct RunConfig {
  std::string name = "run";           ///< run.name
  std::uint64_t seed = 1;             ///< run.seed
  std::uint32_t num_rounds = 100;     ///< run.num-rounds
  double target_accuracy = 0;         ///< run.target-accuracy: reported as rounds_to_target; 0: none
  bool stop_at_target = false;        ///< run.stop-at-target
  std::uint32_t eval_every = 1;       ///< run.eval-every rounds
  ModelConfig model;
  DataConfig data;
  PartitionConfig partition;
  StrategyConfig strategy;
  ClientConfig client;
  SelectionConfig selection;
  SecureAggregationConfig secure_aggregation;
  PrivacyConfig privacy;
  FleetConfig fleet;
  ServerConfig server;
};

/// The learning rate of round `round` (1 is the first): client.learning-rate by its schedule.
double learning_rate_of(const RunConfig& config, std::uint32_t round);
/// client.compressor, with "auto" resolved: fp32 for fp32 and qat-int8 and under secure aggregation or
/// differential privacy, else the precision's own.
std::string compressor_of(const RunConfig& config);
/// What devices are told of secure aggregation, for sums of at most `max_devices`; the default plan where
/// it is off. Error, naming the key: a missing max-weight (without differential privacy, where it is 1),
/// or a precision or compressor of the client's whose updates cannot be masked.
Result<SecureAggregationPlan> secure_aggregation_plan_of(const RunConfig& config,
                                                         std::uint32_t max_devices);

/// Reads a TOML run file, then applies `overrides` ("client.learning-rate=0.05", TOML values; a bare
/// word is taken as a string). Unknown keys, wrong types and values out of range are refused naming
/// file, line and key (overrides: the override).
Result<RunConfig> load_run_file(const std::string& path, const std::vector<std::string>& overrides);
Result<RunConfig> parse_run_text(const std::string& text, const std::string& origin,
                                 const std::vector<std::string>& overrides);

/// The network a run file describes, for data of this shape: its preset, or its layers as given. Error
/// when the last layer's units are not the data's classes.
Result<ModelSpec> model_spec_of(const RunConfig& config,
                                const std::vector<std::uint32_t>& input_shape,
                                std::uint32_t classes);

/// The configuration as a complete TOML run file: every key that says something, with its value.
std::string to_toml(const RunConfig& config);

}  // namespace covey
