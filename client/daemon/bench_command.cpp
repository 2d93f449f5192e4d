#include "bench_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <covey/client/trainer.hpp>
#include <covey/encoding.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/network.hpp>
#include <covey/models/peak.hpp>
#include <cstdio>
#include <memory>
#include <numeric>
#include <thread>

#include "bench_compression_command.hpp"
#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

struct BenchOptions {
  std::string model = "2nn";
  std::uint32_t batch = 10;
  unsigned threads = 1;
  std::string precision = "fp32";
  double seconds = 3;
  std::string data_directory;
  bool json = false;
};

/// What a device holds and trains in one visit. The examples of a device of McMahan's MNIST (600),
/// of Synthetic (about 200), or a few lines of a play.
struct Workload {
  models::DataSet data;
  std::vector<std::uint32_t> order;  ///< all examples, device after device
  std::size_t examples_per_device = 600;
  std::string source;
};

/// Examples of about the numbers that real ones have: four of five pixels of an MNIST digit are 0.
Result<models::DataSet> random_images(std::size_t count, RandomStream random) {
  std::vector<std::uint8_t> pixels(count * 28 * 28);
  for (auto& pixel : pixels) {
    pixel = random.below(5) == 0 ? static_cast<std::uint8_t>(random.below(256)) : std::uint8_t{0};
  }
  std::vector<std::int32_t> labels(count);
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(10));
  return models::DataSet::from_bytes({28, 28, 1}, std::move(pixels), 1.0f / 255, std::move(labels),
                                     10);
}

Result<models::DataSet> random_vectors(std::size_t count, RandomStream random) {
  std::vector<float> features(count * 60);
  for (float& feature : features) feature = static_cast<float>(random.normal());
  std::vector<std::int32_t> labels(count);
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(10));
  return models::DataSet::from_floats({60}, std::move(features), std::move(labels), 10);
}

Result<models::DataSet> random_text(std::size_t count, RandomStream random) {
  constexpr std::uint32_t kSteps = 80, kSymbols = 258;
  std::vector<std::uint16_t> tokens(count * kSteps);
  for (auto& token : tokens) token = static_cast<std::uint16_t>(random.below(kSymbols));
  std::vector<std::int32_t> labels(count * kSteps);
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(kSymbols));
  return models::DataSet::from_tokens(kSteps, std::move(tokens), std::move(labels), kSymbols);
}

Result<Workload> make_workload(const BenchOptions& options) {
  const RandomStream random(1, RandomPurpose::kDataGeneration);
  Workload workload;
  workload.source = "random";
  if (options.model == "logistic") {
    workload.examples_per_device = 200;
    COVEY_ASSIGN(workload.data, random_vectors(20'000, random));
  } else if (options.model == "char-lstm") {
    workload.examples_per_device = 4 * std::size_t{options.batch};
    COVEY_ASSIGN(workload.data, random_text(workload.examples_per_device * 8, random));
  } else {
    auto mnist = models::load_mnist(options.data_directory);
    if (mnist.ok()) {
      workload.source = "mnist";
      workload.data = std::move(mnist->train);
    } else {
      COVEY_ASSIGN(workload.data, random_images(6'000, random));
    }
  }
  workload.order.resize(workload.data.size());
  std::iota(workload.order.begin(), workload.order.end(), 0u);
  return workload;
}

struct Measured {
  std::uint64_t steps = 0;
  double seconds = 0;
  std::size_t engine_bytes = 0;
  double rss_growth = 0;  ///< bytes that the trainers brought, all threads together
};

/// Device after device, as a worker of the simulator trains them: load the round's model, one
/// epoch, encode the update.
class Worker {
 public:
  Worker(const Workload& workload, const strategies::Registry& registry)
      : workload_(workload), trainer_(workload.data, registry) {}

  Result<std::uint32_t> visit(const client::TrainingTask& task) {
    const std::size_t n = std::min(workload_.examples_per_device, workload_.order.size());
    const std::size_t devices = workload_.order.size() / n;
    trainer_.use_examples(std::span(workload_.order).subspan(visits_++ % devices * n, n));
    COVEY_ASSIGN(const auto trained, trainer_.train(task, {}));
    return trained.steps;
  }

 private:
  const Workload& workload_;
  client::SgdTrainer trainer_;
  std::size_t visits_ = 0;
};

Result<client::TrainingTask> make_task(const BenchOptions& options, const Workload& workload) {
  client::TrainingTask task;
  COVEY_ASSIGN(task.plan.model,
               preset_model(options.model, workload.data.shape(), workload.data.classes()));
  task.plan.strategy = "fedavg";
  task.plan.batch_size = options.batch;
  task.plan.learning_rate = 0.01f;
  task.plan.precision = options.precision;
  COVEY_ASSIGN(const Encoding encoding, model_encoding(options.precision));
  task.plan.compressor = to_string(encoding);
  COVEY_ASSIGN(const auto engine, models::make_engine(task.plan.model, options.precision));
  COVEY_ASSIGN(const auto network, models::Network::make(task.plan.model));
  ParameterVector initial(engine->layout().size());
  network.initialise(initial.span().first(network.num_parameters()),
                     RandomStream(1, RandomPurpose::kModelInitialisation));
  task.model = encode(encoding, engine->layout(), initial.span());
  return task;
}

Result<Measured> measure(const BenchOptions& options, const Workload& workload,
                         const client::TrainingTask& task) {
  const auto registry = strategies::Registry::with_built_ins();
  std::atomic<std::uint64_t> steps{0};
  std::atomic<bool> stop{false};
  std::atomic<unsigned> warm{0};
  std::vector<std::optional<Error>> errors(options.threads);
  const auto work = [&](unsigned thread) {
    Worker worker(workload, registry);
    auto first = worker.visit(task);  // plans the network and makes its buffers
    if (!first.ok()) errors[thread] = first.error();
    ++warm;
    while (!errors[thread] && !stop.load(std::memory_order_relaxed)) {
      auto done = worker.visit(task);
      if (!done.ok()) {
        errors[thread] = done.error();
        return;
      }
      steps.fetch_add(*done, std::memory_order_relaxed);
    }
  };
  const double rss_before = private_bytes();
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < options.threads; ++i) threads.emplace_back(work, i);
  while (warm.load() < options.threads) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t before = steps.load();
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  const double rss_after = private_bytes();
  stop = true;
  threads.clear();  // whole visits: the time ends with the last
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  Measured measured;
  measured.rss_growth = std::max(0.0, rss_after - rss_before);
  measured.steps = steps.load() - before;
  COVEY_ASSIGN(const auto engine, models::make_engine(task.plan.model, options.precision));
  engine->reserve(options.batch);
  COVEY_TRY(engine->load(task.model.span()));
  engine->begin_training(task.plan.optimizer, RandomStream(1, RandomPurpose::kTraining));
  measured.engine_bytes = engine->bytes();
  measured.seconds = time.count();
  for (const auto& error : errors) {
    if (error) return *error;
  }
  return measured;
}

Result<int> bench_train(const BenchOptions& options) {
  COVEY_ASSIGN(const Workload workload, make_workload(options));
  COVEY_ASSIGN(const auto task, make_task(options, workload));
  COVEY_ASSIGN(const auto network, models::Network::make(task.plan.model));
  COVEY_ASSIGN(const Measured measured, measure(options, workload, task));
  const double peak = models::measure_sgemm_gflops();
  const double steps_per_s = static_cast<double>(measured.steps) / measured.seconds;
  const double gflops = steps_per_s * options.batch * network.training_flops_per_example() / 1e9;
  const double us = 1e6 * options.threads / steps_per_s;
  fmt::print("{} in {}, batches of {}, {} thread{}, {} kernels, {} data\n", options.model,
             options.precision, options.batch, options.threads, options.threads == 1 ? "" : "s",
             models::kernel_instruction_set(), workload.source);
  fmt::print("  {} per thread by the engine's plan; the process grew by {} for {} thread{}\n",
             human_bytes(static_cast<double>(measured.engine_bytes)),
             human_bytes(measured.rss_growth), options.threads, options.threads == 1 ? "" : "s");
  fmt::print("  {:.0f} steps/s, {:.4g} us per step and thread\n", steps_per_s, us);
  fmt::print("  {:.1f} GFLOP/s; the matrix product alone reaches {:.1f} per thread\n", gflops,
             peak);
  if (options.json) {
    print_json({{"model", options.model},
                {"precision", options.precision},
                {"batch", options.batch},
                {"threads", options.threads},
                {"data", workload.source},
                {"kernels", models::kernel_instruction_set()},
                {"steps", measured.steps},
                {"seconds", measured.seconds},
                {"steps_per_s", steps_per_s},
                {"us_per_step", us},
                {"gflops", gflops},
                {"sgemm_gflops_per_thread", peak},
                {"engine_bytes", measured.engine_bytes},
                {"rss_growth_bytes", measured.rss_growth},
                {"peak_rss_mib", peak_rss_mib()}});
  }
  return kExitDone;
}

}  // namespace

void add_bench_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* bench = app.add_subcommand("bench", "Measures this machine");
  bench->require_subcommand(1);
  add_compression_bench(*bench, run);
  CLI::App* train = bench->add_subcommand(
      "train", "Steps per second of local training: load the model, one epoch, encode the update");
  train->add_option("--model", options->model, "A preset: " + preset_names())
      ->capture_default_str();
  train->add_option("--batch", options->batch, "Examples per step")
      ->check(CLI::Range(1u, 4096u))
      ->capture_default_str();
  train->add_option("--threads", options->threads, "Devices trained side by side")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  train->add_option("--precision", options->precision, "fp32, bf16, qat-int8 or int8")
      ->capture_default_str();
  train->add_option("--seconds", options->seconds, "How long to measure")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  train
      ->add_option("--data", options->data_directory,
                   "Folder with MNIST's files; random data where there are none")
      ->envname("COVEY_DATA");
  train->add_flag("--json", options->json, "Ends standard output with one JSON object");
  train->footer("Example: covey bench train --model cnn --threads 2");
  train->callback([options, &run] {
    run = [options] {
      const auto code = bench_train(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
