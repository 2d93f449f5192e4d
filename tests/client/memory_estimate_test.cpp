// Resident memory says nothing under the sanitizers, which have much of their own.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COVEY_SANITIZED 1
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(COVEY_SANITIZED)

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <covey/client/memory_estimate.hpp>
#include <covey/client/trainer.hpp>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <string>

using namespace covey;
using namespace covey::client;

namespace {

constexpr std::uint64_t kSeed = 20240607;
constexpr double kMiB = 1 << 20;
constexpr std::uint32_t kExamples = 40;
constexpr std::uint32_t kSteps = 80;

/// LeNet-5 as LeCun et al. 1998 describe it, with max pooling and full connections: 61,706
/// parameters.
ModelSpec lenet() {
  const auto convolution = [](std::uint32_t filters, Padding padding) {
    return LayerSpec{.kind = LayerKind::kConv2d, .units = filters, .kernel = 5, .padding = padding};
  };
  const LayerSpec pool{.kind = LayerKind::kMaxPool2d, .kernel = 2};
  const LayerSpec relu{.kind = LayerKind::kRelu};
  const auto dense = [](std::uint32_t units) {
    return LayerSpec{.kind = LayerKind::kDense, .units = units};
  };
  return {.input_shape = {28, 28, 1},
          .layers = {convolution(6, Padding::kSame),
                     relu,
                     pool,
                     convolution(16, Padding::kValid),
                     relu,
                     pool,
                     {.kind = LayerKind::kFlatten},
                     dense(120),
                     relu,
                     dense(84),
                     relu,
                     dense(10)}};
}

ModelSpec model_named(const std::string& name) {
  if (name == "lenet") return lenet();
  if (name == "char-lstm") return *preset_model(name, {kSteps}, 258);
  if (name == "2nn") return *preset_model(name, {784}, 10);
  return *preset_model(name, {28, 28, 1}, 10);
}

/// As little as can be trained on the same data.
ModelSpec small_for(const models::DataSet& data) {
  if (data.vocabulary() == 0) return *preset_model("logistic", data.shape(), data.classes());
  ModelSpec spec = *preset_model("char-lstm", data.shape(), data.vocabulary());
  for (LayerSpec& layer : spec.layers) {
    if (layer.kind == LayerKind::kLstm || layer.kind == LayerKind::kEmbedding) layer.units = 1;
  }
  return spec;
}

models::DataSet data_for(const ModelSpec& spec) {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration);
  if (spec.input_shape == std::vector<std::uint32_t>{kSteps}) {
    std::vector<std::uint16_t> tokens(kExamples * kSteps);
    std::vector<std::int32_t> labels(tokens.size());
    for (auto& token : tokens) token = static_cast<std::uint16_t>(random.below(258));
    for (auto& label : labels) label = static_cast<std::int32_t>(random.below(258));
    return *models::DataSet::from_tokens(kSteps, std::move(tokens), std::move(labels), 258);
  }
  std::vector<std::uint8_t> pixels(kExamples * 784);
  std::vector<std::int32_t> labels(kExamples);
  for (auto& pixel : pixels) pixel = static_cast<std::uint8_t>(random.below(256));
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(10));
  return *models::DataSet::from_bytes(spec.input_shape, std::move(pixels), 1.0f / 255,
                                      std::move(labels), 10);
}

/// "VmHWM" and the like of this process, in bytes.
std::uint64_t status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

struct Outcome {
  bool ok = false;
  std::array<char, 200> error{};
  std::uint64_t base = 0, estimate = 0, peak = 0, model = 0;

  void fail(const std::string& message) { message.copy(error.data(), error.size() - 1); }
  double added() const { return static_cast<double>(peak - base); }
};

/// What `work` finds in a process of its own, with a peak of its own.
Outcome in_child(const std::function<void(Outcome&)>& work) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Outcome outcome;
    // As covey-client does: what is freed goes back to the system.
    ::mallopt(M_MMAP_THRESHOLD, 64 * 1024);
    ::mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    ::malloc_trim(0);
    work(outcome);
    const ssize_t written = ::write(ends[1], &outcome, sizeof outcome);
    ::_exit(written == sizeof outcome ? 0 : 1);
  }
  ::close(ends[1]);
  Outcome outcome;
  const ssize_t got = ::read(ends[0], &outcome, sizeof outcome);
  ::close(ends[0]);
  int how = 0;
  ::waitpid(child, &how, 0);
  REQUIRE(got == sizeof outcome);
  REQUIRE(WIFEXITED(how));
  return outcome;
}

struct Case {
  std::string model;
  std::string precision = "fp32";
  std::string compressor = "fp32";
  std::string strategy = "fedavg";
  OptimizerKind optimizer = OptimizerKind::kSgd;
  std::uint32_t batch = 10;
  bool secure = false;
  bool bounded = false;  ///< how many bytes its update takes is known by an upper bound only
};

TrainingPlan plan_of(const Case& c) {
  TrainingPlan plan;
  plan.strategy = c.strategy;
  if (c.strategy == "qfedavg") plan.strategy_parameters = {{"q", 1.0}};
  plan.model = model_named(c.model);
  plan.precision = c.precision;
  plan.compressor = c.compressor;
  plan.batch_size = c.batch;
  plan.optimizer.kind = c.optimizer;
  plan.learning_rate = 0.01f;
  plan.seed = kSeed;
  if (c.secure) {
    plan.secure_aggregation.threat_model = ThreatModel::kHonestButCurious;
    plan.secure_aggregation.max_weight = kExamples;
    plan.secure_aggregation.max_devices = 100;
    plan.secure_aggregation.rotation = true;
  }
  return plan;
}

SharedBytes model_of(const TrainingPlan& plan) {
  const auto network = *models::make_network(plan.model, plan.precision);
  ParameterVector initial(network.num_parameters());
  network.initialise(initial.span(), RandomStream(kSeed, RandomPurpose::kModelInitialisation));
  return encode(*model_encoding(plan.precision), network.layout(), initial.span());
}

/// The pages of code that every training needs: a fork begins without, a device has them after its
/// first.
void warm_up(const models::DataSet& data, const strategies::Registry& registry,
             std::span<const std::uint32_t> indices) {
  TrainingTask task;
  task.plan = plan_of({.model = "2nn"});
  task.plan.model = small_for(data);
  task.plan.batch_size = 1;
  task.model = model_of(task.plan);
  SgdTrainer trainer(data, registry);
  trainer.use_examples(indices);
  trainer.free_after_training(true);
  static_cast<void>(trainer.train(task, {}));
}

Outcome measured(const Case& c) {
  const auto registry = strategies::Registry::with_built_ins();
  return in_child([&](Outcome& outcome) {
    TrainingTask task;
    task.plan = plan_of(c);
    const models::DataSet data = data_for(task.plan.model);
    std::vector<std::uint32_t> indices(kExamples);
    std::iota(indices.begin(), indices.end(), 0u);
    warm_up(data, registry, indices);
    ::malloc_trim(0);
    outcome.base = resident_bytes();
    const auto estimate = estimate_memory(
        task.plan, registry,
        {.num_examples = kExamples, .process_bytes = outcome.base, .data_bytes = 0});
    if (!estimate.ok()) return outcome.fail(estimate.error().message);
    outcome.estimate = estimate->peak();
    task.model = model_of(task.plan);
    outcome.model = task.model.size();
    if (parse_compressor(c.compressor)->error_feedback) {
      task.residual = encode_fp32(ParameterVector(
          models::make_network(task.plan.model, task.plan.precision)->num_parameters()));
    }
    ::malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew: proc(5)
    SgdTrainer trainer(data, registry);
    trainer.use_examples(indices);
    trainer.free_after_training(true);
    const auto trained = trainer.train(task, {});
    if (!trained.ok()) return outcome.fail(trained.error().message);
    SharedBytes masked;
    if (trained->packed) {  // a masked copy, as MaskJob makes it
      masked = SharedBytes(
          std::vector<std::byte>(trained->update.span().begin(), trained->update.span().end()));
    }
    outcome.peak = status("VmHWM");
    outcome.ok = true;
  });
}

void check_estimate(const Case& c) {
  const Outcome outcome = measured(c);
  INFO(c.model << " " << c.precision << " " << c.compressor << " " << c.strategy << " batch "
               << c.batch << " seed " << kSeed << ": " << outcome.error.data());
  REQUIRE(outcome.ok);
  if (std::getenv("COVEY_TELL_MEMORY") != nullptr) {
    std::printf(
        "%-10s %-9s %-26s %-8s batch %3u%s: model %6.2f base %6.2f peak %6.2f estimate %6.2f "
        "(%.2f) added %.2f x model\n",
        c.model.c_str(), c.precision.c_str(), c.compressor.c_str(), c.strategy.c_str(), c.batch,
        c.secure ? " secure" : "", static_cast<double>(outcome.model) / kMiB,
        static_cast<double>(outcome.base) / kMiB, static_cast<double>(outcome.peak) / kMiB,
        static_cast<double>(outcome.estimate) / kMiB,
        static_cast<double>(outcome.estimate) / static_cast<double>(outcome.peak),
        outcome.added() / static_cast<double>(outcome.model));
  }
  CHECK(outcome.estimate >= outcome.peak);
  if (c.bounded) return;
  CHECK(static_cast<double>(outcome.estimate) <= 1.3 * static_cast<double>(outcome.peak));
}

}  // namespace

TEST_CASE("a training's peak is below its estimate, and not far below") {
  for (const char* model : {"2nn", "cnn", "dscnn", "lenet", "char-lstm"})
    check_estimate({.model = model});
}

TEST_CASE("the estimate knows optimisers, batches and strategies") {
  check_estimate({.model = "cnn", .optimizer = OptimizerKind::kAdam});
  check_estimate({.model = "cnn", .optimizer = OptimizerKind::kMomentum});
  check_estimate({.model = "cnn", .batch = 0});
  check_estimate({.model = "2nn", .strategy = "qfedavg"});
}

TEST_CASE("the estimate knows precisions and encodings") {
  check_estimate({.model = "cnn", .compressor = "bf16"});
  check_estimate({.model = "cnn", .compressor = "int8"});
  check_estimate({.model = "cnn", .precision = "bf16", .compressor = "bf16"});
  check_estimate({.model = "cnn", .precision = "qat-int8"});
  check_estimate({.model = "cnn", .precision = "int8", .compressor = "int8"});
}

TEST_CASE("the estimate knows compressors and error feedback") {
  for (const char* compressor :
       {"drive", "eden-2+error-feedback", "top-k:0.01", "int4+error-feedback"}) {
    check_estimate({.model = "cnn", .compressor = compressor});
  }
  check_estimate({.model = "cnn", .compressor = "rate-distortion+zstd", .bounded = true});
}

TEST_CASE("the estimate knows secure sums") { check_estimate({.model = "cnn", .secure = true}); }

TEST_CASE("training adds less than three times the model") {
  const Outcome outcome = measured({.model = "cnn"});
  REQUIRE(outcome.ok);
  CHECK(outcome.added() < 3 * static_cast<double>(outcome.model));
}

TEST_CASE("training a model of LeNet's size adds four megabytes at most") {
  const Outcome outcome = measured({.model = "lenet"});
  REQUIRE(outcome.ok);
  CHECK(outcome.added() < 4 * kMiB);
}

TEST_CASE("a plan that does not fit is refused with both figures") {
  const auto registry = strategies::Registry::with_built_ins();
  const TrainingPlan plan = plan_of({.model = "cnn"});
  const MemoryBase base{.num_examples = kExamples, .process_bytes = 6 << 20, .data_bytes = 0};
  const auto estimate = estimate_memory(plan, registry, base);
  REQUIRE(estimate.ok());
  CHECK(check_memory(plan, registry, base, 0).ok());
  CHECK(check_memory(plan, registry, base, estimate->peak()).ok());
  const auto refused = check_memory(plan, registry, base, 12 << 20);
  REQUIRE_FALSE(refused.ok());
  std::array<char, 100> expected{};
  std::snprintf(expected.data(), expected.size(),
                "training takes %.1f MiB of memory, this device allows 12.0 MiB",
                static_cast<double>(estimate->peak()) / kMiB);
  CHECK(refused.error().message == expected.data());
}

TEST_CASE("an estimate of what cannot be carried out is an error") {
  const auto registry = strategies::Registry::with_built_ins();
  TrainingPlan plan = plan_of({.model = "2nn"});
  plan.precision = "fp7";
  CHECK_FALSE(estimate_memory(plan, registry, {}).ok());
  plan = plan_of({.model = "2nn"});
  plan.compressor = "magic";
  CHECK_FALSE(estimate_memory(plan, registry, {}).ok());
  plan = plan_of({.model = "2nn"});
  plan.strategy = "magic";
  CHECK_FALSE(estimate_memory(plan, registry, {}).ok());
  plan = plan_of({.model = "2nn"});
  plan.model.torchscript = std::string(64, 'a');
  CHECK_FALSE(estimate_memory(plan, registry, {}).ok());
}

TEST_CASE(
    "a training that runs into the system's limit is an error in words, and the next one works") {
  const auto registry = strategies::Registry::with_built_ins();
  const Outcome outcome = in_child([&](Outcome& found) {
    TrainingTask task;
    task.plan = plan_of({.model = "cnn"});
    const models::DataSet data = data_for(task.plan.model);
    std::vector<std::uint32_t> indices(kExamples);
    std::iota(indices.begin(), indices.end(), 0u);
    task.model = model_of(task.plan);
    SgdTrainer trainer(data, registry);
    trainer.use_examples(indices);
    rlimit before{};
    ::getrlimit(RLIMIT_DATA, &before);
    // Room for half of what training takes.
    const rlimit little{status("VmData") + task.model.size() / 2, before.rlim_max};
    ::setrlimit(RLIMIT_DATA, &little);
    const auto refused = trainer.train(task, {});
    ::setrlimit(RLIMIT_DATA, &before);
    if (refused.ok()) return found.fail("it was not short of memory");
    found.fail(refused.error().message);
    found.ok = trainer.train(task, {}).ok();
  });
  CHECK(outcome.ok);
  CHECK(std::string(outcome.error.data()) ==
        "training this model of 6.3 MiB in batches of 10 takes more memory than this device gives");
}

#endif
