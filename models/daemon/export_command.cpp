#include "export_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/models/calibration.hpp>
#include <covey/models/quantised_model.hpp>
#include <covey/simulation/evaluation.hpp>
#include <covey/simulation/experiment.hpp>
#include <filesystem>
#include <memory>
#include <numeric>
#include <thread>

#include "models/daemon/run_result.hpp"
#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;

struct ExportOptions {
  std::string run;
  std::string quantize = "int8";
  std::string out;
  std::string data_directory;
  std::uint32_t calibrate = 0;  ///< examples; 0: not given
  double coverage = 1;
  bool json = false;
};

constexpr std::uint32_t kUsualExamples = 1000;

struct Ranges {
  std::vector<float> values;   ///< of the input and of each layer with weights
  std::uint32_t examples = 0;  ///< they were calibrated on; 0: the run's training found them
};

struct Evaluations {
  models::Evaluation fp32;
  models::Evaluation int8;
};

bool brings_ranges(const RunConfig& config, const ExportOptions& options) {
  return config.client.precision == "qat-int8" && options.calibrate == 0;
}

/// The run's data, network and layout. A run that brings its ranges needs no data.
Result<simulation::Experiment> load(const RunConfig& config, const ExportOptions& options) {
  if (!config.model.torchscript.empty()) {
    return invalid_argument(
        options.run + " trained a TorchScript file; only networks of layers can be quantised");
  }
  auto experiment = simulation::load_experiment(config, options.data_directory);
  if (experiment.ok() || experiment.error().code != ErrorCode::kNotFound) return experiment;
  if (!brings_ranges(config, options)) {
    return with_context(
        "calibration needs the run's training examples; name their directory with --data or "
        "COVEY_DATA",
        experiment.error());
  }
  return simulation::load_server_experiment(config, options.data_directory);
}

/// The ranges at the end of a quantisation-aware vector; nothing where training has not set them.
std::optional<std::vector<float>> trained_ranges(std::span<const float> parameters,
                                                 std::size_t count) {
  const auto ranges = parameters.last(count);
  const bool known =
      ranges[0] > 0 && std::ranges::all_of(ranges, [](float range) { return range >= 0; });
  if (!known) return std::nullopt;
  return std::vector<float>(ranges.begin(), ranges.end());
}

Result<Ranges> find_ranges(const simulation::Experiment& experiment, const models::Network& network,
                           std::span<const float> parameters, const ExportOptions& options) {
  if (brings_ranges(experiment.config, options)) {
    auto trained = trained_ranges(parameters, models::count_ranges(network.spec()));
    if (trained) return Ranges{std::move(*trained), 0};
  }
  const models::DataSet& train = experiment.data.train;
  const std::uint32_t wanted = options.calibrate > 0 ? options.calibrate : kUsualExamples;
  COVEY_ASSIGN(
      auto values,
      models::calibrate(
          network, parameters.first(network.num_parameters()), train,
          {.examples = wanted, .seed = experiment.config.seed, .coverage = options.coverage}));
  const auto examples = static_cast<std::uint32_t>(std::min<std::size_t>(wanted, train.size()));
  return Ranges{std::move(values), examples};
}

models::Evaluation evaluate_integers(models::QuantisedModel& model, const models::DataSet& test) {
  constexpr std::size_t kBlock = 500;
  std::vector<float> features(kBlock * test.example_size());
  std::vector<std::int32_t> labels(kBlock);
  std::vector<std::uint32_t> indices(test.size());
  std::iota(indices.begin(), indices.end(), 0u);
  models::Evaluation total;
  for (std::size_t first = 0; first < test.size(); first += kBlock) {
    const auto some = std::span<const std::uint32_t>(indices).subspan(
        first, std::min(kBlock, test.size() - first));
    const std::span inputs(features.data(), some.size() * test.example_size());
    const std::span targets(labels.data(), some.size());
    test.gather(some, inputs, targets);
    const models::Evaluation part = model.evaluate(inputs, targets);
    total.loss_sum += part.loss_sum;
    total.correct += part.correct;
    total.examples += part.examples;
  }
  return total;
}

/// Nothing where there are no test examples.
Result<std::optional<Evaluations>> evaluate(const simulation::Experiment& experiment,
                                            models::QuantisedModel& model,
                                            std::span<const float> weights) {
  if (experiment.data.test.empty()) return std::optional<Evaluations>();
  TrainingPlan plan = experiment.plan;
  plan.precision = "fp32";
  COVEY_ASSIGN(auto evaluator,
               simulation::Evaluator::make(plan, models::make_engine,
                                           std::max(1u, std::thread::hardware_concurrency())));
  Evaluations result;
  result.fp32 = evaluator.evaluate(experiment.data.test, weights);
  result.int8 = evaluate_integers(model, experiment.data.test);
  return std::optional(result);
}

/// "input", then the layers with weights: "conv1", "dense1".
std::vector<std::string> range_names(const ModelLayout& layout) {
  std::vector<std::string> names{"input"};
  for (const TensorLayout& tensor : layout.tensors()) {
    if (tensor.shape.size() >= 2) names.push_back(tensor.name.substr(0, tensor.name.rfind('.')));
  }
  return names;
}

struct Summary {
  std::string out;
  std::uintmax_t fp32_bytes = 0;
  std::uintmax_t int8_bytes = 0;
  std::optional<Evaluations> evaluations;
  std::vector<std::string> names;  ///< of the ranges
  Ranges ranges;
};

void print(const Summary& summary) {
  const auto bytes = [](std::uintmax_t count) { return human_bytes(static_cast<double>(count)); };
  fmt::print("  {}\n", summary.out);
  fmt::print("  size      fp32 {:>9}  int8 {:>9}  {:.2f} times smaller\n",
             bytes(summary.fp32_bytes), bytes(summary.int8_bytes),
             static_cast<double>(summary.fp32_bytes) / static_cast<double>(summary.int8_bytes));
  if (summary.evaluations) {
    const auto& [fp32, int8] = *summary.evaluations;
    fmt::print("  accuracy  fp32 {:>8.2f}%  int8 {:>8.2f}%  of {} test examples\n",
               100 * fp32.accuracy(), 100 * int8.accuracy(), fp32.examples);
    fmt::print("  loss      fp32 {:>9.4f}  int8 {:>9.4f}\n", fp32.loss(), int8.loss());
  } else {
    fmt::print("  not evaluated: there are no test examples\n");
  }
  fmt::print("  ranges {}:\n",
             summary.ranges.examples == 0
                 ? "that training found"
                 : fmt::format("from {} training examples", summary.ranges.examples));
  for (std::size_t i = 0; i < summary.names.size(); ++i) {
    fmt::print("    {:<10} {:>9.4g}\n", summary.names[i], summary.ranges.values[i]);
  }
}

nlohmann::json to_json(const Summary& summary) {
  nlohmann::json json = {{"out", summary.out},
                         {"fp32_bytes", summary.fp32_bytes},
                         {"int8_bytes", summary.int8_bytes},
                         {"calibration_examples", summary.ranges.examples},
                         {"ranges", nlohmann::json::object()},
                         {"fp32", nullptr},
                         {"int8", nullptr}};
  for (std::size_t i = 0; i < summary.names.size(); ++i) {
    json["ranges"][summary.names[i]] = summary.ranges.values[i];
  }
  if (summary.evaluations) {
    const auto figures = [](const models::Evaluation& evaluation) {
      return nlohmann::json{{"accuracy", evaluation.accuracy()},
                            {"loss", evaluation.loss()},
                            {"examples", evaluation.examples}};
    };
    json["fp32"] = figures(summary.evaluations->fp32);
    json["int8"] = figures(summary.evaluations->int8);
  }
  return json;
}

Result<int> export_model(const ExportOptions& options) {
  COVEY_ASSIGN(const RunResult run, find_run(options.run));
  COVEY_ASSIGN(RunConfig config, load_run_file(run.run_file, {}));
  // What else a run trained in does not show in its model, which is fp32.
  if (config.client.precision != "qat-int8") config.client.precision = "fp32";
  if (options.coverage < 1 && brings_ranges(config, options)) {
    return invalid_argument("--coverage is of calibration, which " + options.run +
                            " does not need: it trained in qat-int8; give --calibrate as well");
  }
  COVEY_ASSIGN(const auto experiment, load(config, options));
  COVEY_ASSIGN(const ParameterVector parameters, read_model(run, experiment.layout));
  COVEY_ASSIGN(const auto network, models::Network::make(experiment.plan.model));
  const auto weights = parameters.span().first(network.num_parameters());

  Summary summary;
  COVEY_ASSIGN(summary.ranges, find_ranges(experiment, network, parameters.span(), options));
  COVEY_ASSIGN(auto model,
               models::QuantisedModel::make(network.spec(), weights, summary.ranges.values));
  summary.out =
      options.out.empty() ? (fs::path(run.folder) / "model.covey8").string() : options.out;
  COVEY_TRY(model.save(summary.out));
  summary.fp32_bytes = weights.size_bytes();
  std::error_code ignored;
  summary.int8_bytes = fs::file_size(summary.out, ignored);
  COVEY_ASSIGN(summary.evaluations, evaluate(experiment, model, weights));
  summary.names = range_names(network.layout());
  print(summary);
  if (options.json) print_json(to_json(summary));
  return kExitDone;
}

}  // namespace

void add_export_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command =
      app.add_subcommand("export", "Makes what a run learnt a model for devices, in integers");
  command->add_option("run", options->run, "Folder that a run wrote, or a model in such a folder")
      ->required();
  command->add_option("--quantize", options->quantize, "What the model computes in")
      ->check(CLI::IsMember({"int8"}))
      ->capture_default_str();
  command->add_option("--out", options->out, "File to write; default: model.covey8 in the folder");
  command
      ->add_option("--calibrate", options->calibrate,
                   "Training examples that show how large activations become; default 1000, none "
                   "after training in qat-int8, which finds that out itself")
      ->check(CLI::Range(1u, 100'000'000u));
  command
      ->add_option("--coverage", options->coverage,
                   "Share of the activations that are represented without clipping")
      ->check(CLI::Range(0.5, 1.0))
      ->capture_default_str();
  command->add_option("--data", options->data_directory, "Directory with the data sets")
      ->envname("COVEY_DATA")
      ->type_name("DIR");
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey export runs/mnist --quantize int8 --out mnist.covey8");
  command->callback([options, &run] {
    run = [options] {
      const auto code = export_model(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
