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
  std::string on_demand = "auto";    ///< data.on-demand: auto | always | never: generate a device's synthetic
                                     ///< examples when it trains, and keep none (auto: for large fleets)
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
  std::string empty = "refuse";      ///< partition.empty: refuse | keep | move: what happens where devices
                                     ///< would have no training example; move: each gets one of the device
                                     ///< that has most
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

/// What devices that say they are of this class (`covey client --device-class`, fleet.class.name) do
/// otherwise than [client] says: [client.class.NAME].
struct ClientClassConfig {
  std::string name;
  std::optional<std::uint32_t> local_epochs;  ///< client.class.NAME.local-epochs
  std::optional<std::uint32_t> batch_size;    ///< client.class.NAME.batch-size
  std::optional<std::string> precision;       ///< client.class.NAME.precision
  double width = 1;  ///< client.class.NAME.width in (0, 1]: share of every hidden layer's units that this
                     ///< class trains (HeteroFL, Diao et al. 2021)
  bool operator==(const ClientClassConfig&) const = default;
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
  /// client.compressor: "auto" (as the precision keeps its weights), a compressor (compressor_spec.hpp),
  /// or a list by preference, ["eden-1", "int8", "fp32"]: a device is asked for the first that it supports.
  /// Under secure aggregation one that adds up: "int8", "int4", "int2" and "eden-1" to "eden-4" set the
  /// bits of a coordinate (eden with rotation; 2 at least, on one uniform lattice for all devices, since
  /// levels of each device's own, as Lloyd and Max choose them, do not add up), "random-k:SHARE" lets so
  /// many coordinates into the sum. "+error-feedback" keeps d floats on every device that took part.
  std::vector<std::string> compressors = {"auto"};
  std::vector<ClientClassConfig> classes;  ///< [client.class.NAME]: what devices of a class do otherwise
};

struct SelectionConfig {
  double fraction_fit = 0.1;             ///< selection.fraction-fit of min-available-clients (C)
  std::uint32_t min_fit_clients = 1;     ///< selection.min-fit-clients: goal is max(this, fraction)
  std::uint32_t min_available_clients = 0;  ///< selection.min-available-clients; 0: all of partition.clients
  std::string policy = "uniform";        ///< selection.policy: uniform | by-examples | poisson |
                                         ///< by-availability | oort | power-of-choice
  std::uint32_t candidates = 0;          ///< selection.candidates d of power-of-choice; 0: twice the cohort
  double exploration = 0.9;              ///< selection.exploration of oort: share of devices never tried,
  double exploration_decay = 0.98;       ///< selection.exploration-decay a round,
  double exploration_min = 0.2;          ///< selection.exploration-min
  double round_penalty = 2;              ///< selection.round-penalty, oort's alpha; 0: speed says nothing
  std::uint32_t max_participations = 0;  ///< selection.max-participations of a device in the run; 0: any
  std::uint32_t min_rounds_between = 0;  ///< selection.min-rounds-between two rounds of one device
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

/// Updates are taken as they come, on whatever model they began with, and the model moves whenever
/// `buffer` of them are there (FedBuff, Nguyen et al. 2022; FedAsync, Xie et al. 2019, is buffer = 1 with
/// strategy fedasync). A round is then one such step of the model.
struct AsynchronousConfig {
  std::uint32_t buffer = 0;        ///< asynchronous.buffer K; 0: synchronous rounds
  std::uint32_t concurrency = 0;   ///< asynchronous.concurrency: devices at work at a time; 0: the goal of
                                   ///< [selection]
  std::uint32_t max_staleness = 100;  ///< asynchronous.max-staleness: an update of an older model is rejected
  std::string staleness = "polynomial";  ///< asynchronous.staleness s(t): constant | polynomial | hinge
  double exponent = 0.5;           ///< asynchronous.exponent a: (1 + t)^-a
  double hinge_slope = 10;         ///< asynchronous.hinge-slope a: 1 / (a (t - b) + 1) above b
  double hinge_from = 4;           ///< asynchronous.hinge-from b
  bool enabled() const { return buffer > 0; }
};

/// How updates are summed so that the server sees only the sum.
struct SecureAggregationConfig {
  std::string mode = "off";  ///< secure-aggregation.mode: off | honest-but-curious | malicious-server
  std::string cipher = "aes-128-ctr";  ///< secure-aggregation.cipher: aes-128-ctr | chacha20
  std::string graph = "auto";          ///< secure-aggregation.graph: auto | complete
  std::uint32_t bits = 16;     ///< secure-aggregation.bits of a coordinate, 2..24
  double clip = 1;             ///< secure-aggregation.clip: largest |coordinate| of an update
  /// secure-aggregation.adaptive-clip: of the first round only; then b times the root mean square of the
  /// coordinates that the last round's devices encoded in b bits (0.6 b with error feedback), known from two
  /// more figures of the sum. Always where client.compressor sets the bits, without differential privacy.
  bool adaptive_clip = false;
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

/// What the devices of one class are like: each trait is drawn per device, uniform in [min, max] (bandwidth
/// and speed: uniform in the logarithm).
struct DeviceClassConfig {
  std::string name = "device";                             ///< fleet.class.name
  double share = 1;                                        ///< fleet.class.share of the fleet, relative
  double latency_ms_min = 20, latency_ms_max = 20;         ///< fleet.latency-ms = 20 or [min, max]
  double up_mbit_s_min = 0, up_mbit_s_max = 0;             ///< fleet.up-mbit-s; 0: unlimited
  double down_mbit_s_min = 0, down_mbit_s_max = 0;         ///< fleet.down-mbit-s
  double gflops_min = 1, gflops_max = 1;                   ///< fleet.gflops: compute speed in training
  double memory_mib_min = 0, memory_mib_max = 0;           ///< fleet.memory-mib for training; 0: enough
  std::string availability = "always";                     ///< fleet.availability: always | nightly | flaky
  double battery_wh = 0;                                   ///< fleet.battery-wh; 0: on mains
  double compute_watts = 3;                                ///< fleet.compute-watts while it trains
  double radio_joules_per_mb = 5;                          ///< fleet.radio-joules-per-mb sent or received
  bool operator==(const DeviceClassConfig&) const = default;
};

/// Virtual devices; the simulator only.
struct FleetConfig {
  std::string mix;               ///< fleet.mix: phones | raspberry-pi | mixed; "": the traits below
  DeviceClassConfig traits;      ///< the keys of [fleet] itself: all devices alike
  std::vector<DeviceClassConfig> classes;  ///< [[fleet.class]]: several kinds, instead of the above
  std::string capacity_trace;    ///< fleet.capacity-trace: CSV or JSON file (FedScale's semantics)
  std::string availability_trace;  ///< fleet.availability-trace: CSV or JSON file
  double start_hour = 0;         ///< fleet.start-hour: coordinated time of day at which the run begins, 0..24
  double max_hours = 0;          ///< fleet.max-hours of virtual time; 0: until the rounds are done
  double dropout = 0;            ///< fleet.dropout: chance that a selected device fails in a round
  std::string dropout_at = "training";  ///< fleet.dropout-at: training | sharing | masking | unmasking |
                                 ///< any: in which step of a secure sum; behind what it last sent
  double stragglers = 0;         ///< fleet.stragglers: share of selected devices that manage only x epochs,
                                 ///< x uniform in [1, E] (Li et al. 2020); reported only with
                                 ///< client.accept-partial-work, else the device misses the round
  bool codec = false;            ///< fleet.codec: send every message through the wire codec and back
  bool keep_model = false;       ///< fleet.keep-model: devices keep the last model that they trained on, and
                                 ///< may download the next as a difference to it; one copy of each model
                                 ///< that some device still holds. Not for runs that are to be resumed
};

/// What goes wrong between and in the machines of a simulated fleet, drawn from a seed. Rates are chances
/// per message, per device and hour, or per commit.
struct FaultConfig {
  std::uint64_t seed = 0;        ///< faults.seed; 0: nothing goes wrong
  double until_s = 0;            ///< faults.until-s of virtual time, then they stop; 0: they never stop
  std::uint32_t until_round = 0; ///< faults.until-round: once it is committed they stop as well; 0: any round
  double delay = 0;              ///< faults.delay: chance that a message is late, by up to delay-s
  double delay_s = 30;           ///< faults.delay-s
  double drop = 0;               ///< faults.drop: a message is lost, and with it the connection
  double duplicate = 0;          ///< faults.duplicate: a message arrives twice
  double reorder = 0;            ///< faults.reorder: a message is overtaken by the next
  double truncate = 0;           ///< faults.truncate: a message loses its end
  double corrupt = 0;            ///< faults.corrupt: bits of a message flip
  double cut = 0;                ///< faults.cut: the connection breaks behind a message
  double device_crash = 0;       ///< faults.device-crash per message: the device starts again from nothing
  double server_crash = 0;       ///< faults.server-crash per event of the server's
  double commit_crash = 0;       ///< faults.commit-crash: the server dies around a commit
  double disk_full = 0;          ///< faults.disk-full: a write of the server's fails
  double clock_skew = 0;         ///< faults.clock-skew: devices' clocks run fast or slow by up to this share
};

/// Byzantine devices: what they send instead of an honest update.
struct AttackConfig {
  std::string kind = "none";     ///< attack.kind: none | label-flip | sign-flip | gaussian | alie | ipm |
                                 ///< backdoor
  double share = 0.1;            ///< attack.share of the devices
  double scale = 1;              ///< attack.scale: c of sign-flip, sigma of gaussian, epsilon of ipm, the
                                 ///< backdoor's boost
  std::uint32_t target_label = 0;  ///< attack.target-label of the backdoor
};

struct ServerConfig {
  std::string listen = "127.0.0.1:7443";   ///< server.listen
  std::uint32_t max_frame_bytes = 1 << 20; ///< server.max-frame-bytes
  std::uint32_t chunk_bytes = 256 * 1024;  ///< server.chunk-bytes
  std::uint32_t max_connections = 20000;   ///< server.max-connections
  std::uint32_t keep_snapshots = 3;        ///< server.keep-snapshots in the store
  /// server.model-history: a device that holds one of so many earlier models may download the new one as a
  /// difference without loss; the server keeps these models and differences in memory. 0: whole models only
  std::uint32_t model_history = 2;
  /// server.model-compressor: off, or a compressor (compressor_spec.hpp): devices are sent a model that
  /// follows the server's own in steps so compressed, so that one that was there some rounds before
  /// downloads the steps between only. The model that is evaluated and stored stays exact.
  std::string model_compressor = "off";
};

struct RunConfig {
  std::string name = "run";           ///< run.name
  std::uint64_t seed = 1;             ///< run.seed
  std::uint32_t num_rounds = 100;     ///< run.num-rounds
  double target_accuracy = 0;         ///< run.target-accuracy: reported as rounds_to_target; 0: none
  bool stop_at_target = false;        ///< run.stop-at-target
  std::uint32_t eval_every = 1;       ///< run.eval-every rounds
  std::uint32_t fairness_every = 0;   ///< run.fairness-every rounds the devices' own test data are evaluated
                                      ///< (simulator); 0: after the last
  ModelConfig model;
  DataConfig data;
  PartitionConfig partition;
  StrategyConfig strategy;
  ClientConfig client;
  SelectionConfig selection;
  AsynchronousConfig asynchronous;
  SecureAggregationConfig secure_aggregation;
  PrivacyConfig privacy;
  FleetConfig fleet;
  FaultConfig faults;
  AttackConfig attack;
  ServerConfig server;
};

/// The learning rate of round `round` (1 is the first): client.learning-rate by its schedule.
double learning_rate_of(const RunConfig& config, std::uint32_t round);
/// client.compressor by preference, with "auto" resolved: fp32 for fp32 and qat-int8 and under secure
/// aggregation or differential privacy, else the precision's own.
std::vector<std::string> compressors_of(const RunConfig& config);
/// The first of them.
std::string compressor_of(const RunConfig& config);
/// Error, naming the key, where client.compressor is not known or does not go with client.precision, secure
/// aggregation or differential privacy.
Result<void> check_compressors(const RunConfig& config);
/// What devices are told of secure aggregation, for sums of at most `max_devices`; the default plan where
/// it is off. Error, naming the key: a missing max-weight (without differential privacy, where it is 1),
/// or a precision or compressor of the client's whose updates cannot be masked.
Result<SecureAggregationPlan> secure_aggregation_plan_of(const RunConfig& config,
                                                         std::uint32_t max_devices);

/// Whether the range of a secure sum's coordinates follows the updates (adaptive-clip).
bool adapts_clip(const RunConfig& config);

/// Error, naming the key, where selection.policy asks for what secure aggregation or differential privacy
/// hides, or its figures contradict each other.
Result<void> check_selection(const RunConfig& config);

/// Error, naming the key, where something that needs a cohort is asked for together with asynchronous
/// aggregation, which has none.
Result<void> check_asynchronous(const RunConfig& config);

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
