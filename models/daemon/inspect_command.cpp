#include "inspect_command.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <covey/encoding.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/inspect.hpp>
#include <covey/models/int8_network.hpp>
#include <covey/run_config.hpp>
#include <memory>
#include <optional>

#include "simulation/daemon/command_line.hpp"

namespace covey {
namespace {

struct InspectOptions {
  std::string model;
  std::string run_file;
  std::string input;
  std::uint32_t classes = 0;
  std::uint32_t batch = 0;
  std::string precision;
  bool json = false;
};

struct DataDescription {
  std::vector<std::uint32_t> shape;
  std::uint32_t classes = 10;
};

Result<std::vector<std::uint32_t>> read_shape(const std::string& text) {
  std::vector<std::uint32_t> shape;
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    std::uint32_t extent = 0;
    const auto read = std::from_chars(at, end, extent);
    if (read.ec != std::errc{} || extent == 0 || (read.ptr != end && *read.ptr != 'x')) {
      return invalid_argument("--input " + text + ": expected sizes like 784, 28x28x1 or 80");
    }
    shape.push_back(extent);
    at = read.ptr == end ? end : read.ptr + 1;
    if (at == end && read.ptr != end) {
      return invalid_argument("--input " + text + " ends with an x: expected sizes like 28x28x1");
    }
  }
  if (shape.empty()) return invalid_argument("--input is empty: expected sizes like 28x28x1");
  return shape;
}

/// The shape of the examples that a data source or a preset is known for; nothing for one that only
/// its files tell.
std::optional<DataDescription> usual_data(const RunConfig& config) {
  if (config.data.source == "csv" || config.data.source == "leaf") return std::nullopt;
  if (config.data.source == "text" || config.model.preset == "char-lstm") {
    return DataDescription{{config.data.steps}, 258};
  }
  if (config.data.source == "mnist") return DataDescription{{28, 28, 1}, 10};
  return DataDescription{{60}, 10};
}

Result<RunConfig> config_of(const InspectOptions& options) {
  if (options.model.empty() == options.run_file.empty()) {
    return invalid_argument("name a preset with --model or a run file with --run, one of them");
  }
  if (!options.run_file.empty()) return load_run_file(options.run_file, {});
  RunConfig config;
  config.model.preset = options.model;
  config.data.source = options.model == "logistic" ? "synthetic" : "mnist";
  return config;
}

nlohmann::json to_json(const models::LayerReport& layer) {
  return {{"name", layer.name},
          {"output_shape", layer.output_shape},
          {"parameters", layer.parameters},
          {"forward_flops", layer.forward_flops},
          {"output_bytes", layer.output_bytes},
          {"saved_bytes", layer.saved_bytes},
          {"scratch_bytes", layer.scratch_bytes},
          {"gradient_bytes", layer.gradient_bytes}};
}

void print_table(const models::ModelReport& report) {
  const auto kib = [](std::size_t bytes) { return static_cast<double>(bytes) / 1024; };
  std::size_t width = 5;
  for (const auto& layer : report.layers) width = std::max(width, layer.name.size());
  fmt::print("  {:{}}  {:>12} {:>10} {:>10}  {:>9} {:>9} {:>9} {:>9}\n", "layer", width, "output",
             "parameters", "MFLOP", "output", "saved", "scratch", "gradient");
  fmt::print("  {:{}}  {:>12} {:>10} {:>10}  {:>9} {:>9} {:>9} {:>9}\n", "", width, "", "",
             "forward", "KiB", "KiB", "KiB", "KiB");
  for (const auto& layer : report.layers) {
    fmt::print("  {:{}}  {:>12} {:>10} {:>10.4g}  {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f}\n",
               layer.name, width, fmt::format("{}", fmt::join(layer.output_shape, "x")),
               layer.parameters, layer.forward_flops / 1e6, kib(layer.output_bytes),
               kib(layer.saved_bytes), kib(layer.scratch_bytes), kib(layer.gradient_bytes));
  }
}

void print_totals(const models::ModelReport& report) {
  const auto bytes = [](std::size_t count) { return human_bytes(static_cast<double>(count)); };
  fmt::print("\n  {} parameters, {} in fp32; {:.4g} MFLOP an example forward, {:.4g} in training\n",
             report.parameters, bytes(4 * report.parameters), report.forward_flops / 1e6,
             report.training_flops / 1e6);
  fmt::print(
      "  a training step on {} examples needs {} beside the parameters ({} without sharing){}\n",
      report.batch, bytes(report.training_bytes), bytes(report.unshared_bytes),
      report.chunk < report.batch ? fmt::format(", in pieces of {}", report.chunk) : "");
  fmt::print("  inference on {} examples needs {}\n", report.batch, bytes(report.inference_bytes));
  if (report.optimizer_bytes > 0) {
    fmt::print("  the optimiser keeps {}\n", bytes(report.optimizer_bytes));
  }
}

/// What int8 training takes: integer weights, activations and sums, layer by layer.
Result<nlohmann::json> print_int8(const ModelSpec& spec, std::size_t batch) {
  COVEY_ASSIGN(const auto network, models::Int8Network::make(spec));
  const models::Int8MemoryPlan plan = network.training_memory(batch);
  const auto kib = [](std::size_t bytes) { return static_cast<double>(bytes) / 1024; };
  nlohmann::json layers = nlohmann::json::array();
  fmt::print("\n  in int8:\n  {:12} {:>12} {:>16} {:>12}\n", "layer", "weights KiB",
             "activations KiB", "scratch KiB");
  for (const auto& layer : plan.layers) {
    fmt::print("  {:12} {:>12.1f} {:>16.1f} {:>12.1f}\n", layer.name, kib(layer.weights),
               kib(layer.activations), kib(layer.scratch));
    layers.push_back({{"name", layer.name},
                      {"weight_bytes", layer.weights},
                      {"activation_bytes", layer.activations},
                      {"scratch_bytes", layer.scratch}});
  }
  const auto bytes = [](std::size_t count) { return human_bytes(static_cast<double>(count)); };
  fmt::print(
      "\n  weights {}, activations {}, gradients {}, scratch {}: {} in training, {} in "
      "inference\n",
      bytes(plan.weights), bytes(plan.activations), bytes(plan.gradients), bytes(plan.scratch),
      bytes(plan.total()), bytes(network.inference_bytes(batch)));
  return nlohmann::json{{"layers", layers},
                        {"weight_bytes", plan.weights},
                        {"activation_bytes", plan.activations},
                        {"gradient_bytes", plan.gradients},
                        {"scratch_bytes", plan.scratch},
                        {"training_bytes", plan.total()},
                        {"inference_bytes", network.inference_bytes(batch)}};
}

Result<int> inspect(const InspectOptions& options) {
  COVEY_ASSIGN(const RunConfig config, config_of(options));
  const std::string precision =
      options.precision.empty() ? config.client.precision : options.precision;
  const auto usual = usual_data(config);
  if (!usual && (options.input.empty() || options.classes == 0)) {
    return invalid_argument("examples of data.source \"" + config.data.source +
                            "\" have no fixed shape: give --input and --classes");
  }
  DataDescription data = usual.value_or(DataDescription{});
  const std::uint32_t batch = options.batch > 0              ? options.batch
                              : config.client.batch_size > 0 ? config.client.batch_size
                                                             : 10;
  if (!options.input.empty()) {
    COVEY_ASSIGN(data.shape, read_shape(options.input));
  }
  if (options.classes > 0) data.classes = options.classes;
  COVEY_ASSIGN(const ModelSpec spec, model_spec_of(config, data.shape, data.classes));
  if (!config.model.torchscript.empty()) {
    return invalid_argument(options.run_file +
                            " names a TorchScript file; only networks of layers can be inspected");
  }
  COVEY_ASSIGN(const auto network, models::Network::make(spec));
  COVEY_ASSIGN(const auto engine, models::make_engine(spec, precision));
  COVEY_ASSIGN(const Encoding encoding, model_encoding(precision));
  const ParameterVector zeros(engine->layout().size());
  COVEY_TRY(engine->load(encode(encoding, engine->layout(), zeros.span()).span()));
  COVEY_TRY(engine->check_training(config.client.optimizer, batch));
  engine->reserve(batch);
  engine->begin_training(config.client.optimizer, RandomStream(1, RandomPurpose::kTraining));
  const auto report = models::inspect(network, batch, config.client.optimizer);

  fmt::print("{}, {} inputs, batches of {}, in fp32:\n\n",
             config.model.preset.empty() ? options.run_file : config.model.preset,
             fmt::format("{}", fmt::join(spec.input_shape, "x")), batch);
  print_table(report);
  print_totals(report);
  nlohmann::json int8 = nullptr;
  if (precision == "int8") {
    COVEY_ASSIGN(int8, print_int8(spec, batch));
  }
  fmt::print("  a device that trains in {} holds {} in all: w, w^t, activations, scratch\n",
             precision, human_bytes(static_cast<double>(engine->bytes())));
  if (options.json) {
    nlohmann::json layers = nlohmann::json::array();
    for (const auto& layer : report.layers) layers.push_back(to_json(layer));
    print_json({{"layers", layers},
                {"batch", report.batch},
                {"chunk", report.chunk},
                {"parameters", report.parameters},
                {"forward_flops", report.forward_flops},
                {"training_flops", report.training_flops},
                {"training_bytes", report.training_bytes},
                {"unshared_bytes", report.unshared_bytes},
                {"inference_bytes", report.inference_bytes},
                {"optimizer_bytes", report.optimizer_bytes},
                {"int8", int8},
                {"precision", precision},
                {"engine_bytes", engine->bytes()}});
  }
  return kExitDone;
}

}  // namespace

void add_inspect_command(CLI::App& app, std::function<int()>& run) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = app.add_subcommand(
      "inspect", "What a network costs: parameters, operations, memory, layer by layer");
  command->add_option("--model", options->model, "A preset: " + preset_names());
  command->add_option("--run", options->run_file,
                      "A run file, for its network, optimiser, precision");
  command->add_option("--input", options->input,
                      "Shape of an example: 784, 28x28x1, 80; default: what the data set has");
  command->add_option("--classes", options->classes, "Classes; default: what the data set has");
  command
      ->add_option("--batch", options->batch, "Examples per step; default: the run file's, or 10")
      ->check(CLI::Range(1u, 65536u));
  command->add_option("--precision", options->precision, "fp32, bf16, qat-int8 or int8");
  command->add_flag("--json", options->json, "Ends standard output with one JSON object");
  command->footer("Example: covey inspect --model cnn --batch 10");
  command->callback([options, &run] {
    run = [options] {
      const auto code = inspect(*options);
      return code.ok() ? *code : report_error(code.error(), options->json);
    };
  });
}

}  // namespace covey
