#include <algorithm>
#include <cmath>
#include <covey/run_config.hpp>
#include <cstdint>
#include <numbers>
#include <utility>

namespace covey {
namespace {

double decay_of(const LearningRateSchedule& schedule, std::uint32_t round, std::uint32_t rounds) {
  const double passed = static_cast<double>(round) - 1;
  switch (schedule.kind) {
    case ScheduleKind::kConstant:
      return 1;
    case ScheduleKind::kStep:
      return std::pow(schedule.decay, std::floor(passed / schedule.step));
    case ScheduleKind::kExponential:
      return std::pow(schedule.decay, passed);
    case ScheduleKind::kInverse:
      return 1 / (1 + schedule.decay * passed);
    case ScheduleKind::kCosine:
      return (1 + std::cos(std::numbers::pi * std::min(1.0, passed / rounds))) / 2;
  }
  return 1;
}

/// A classifier scores every class; with the other losses one output may stand for the number
/// itself.
Result<void> check_outputs(const ModelConfig& model, std::uint32_t classes) {
  if (model.target != Target::kLabel) return {};
  const LayerSpec& last = model.layers.back();
  const bool is_dense = last.kind == LayerKind::kDense;
  const std::string wanted = std::to_string(classes);
  if (model.loss == Loss::kCrossEntropy) {
    if (is_dense && last.units == classes) return {};
    const std::string found = is_dense ? "has units = " + std::to_string(last.units)
                                       : "is of type \"" + std::string(to_string(last.kind)) + "\"";
    return invalid_argument("model.layers: the last layer " + found + "; the data has " + wanted +
                            " classes, so it must be {type = \"dense\", units = " + wanted + "}");
  }
  if (!is_dense || last.units == 1 || last.units == classes) return {};
  return invalid_argument("model.layers: the last layer has units = " + std::to_string(last.units) +
                          "; with model.loss = \"" + std::string(to_string(model.loss)) +
                          "\" it gives the label itself (units = 1) or one value for each of the " +
                          wanted + " classes (units = " + wanted + ")");
}

Result<std::vector<std::uint32_t>> as_row(const std::vector<std::uint32_t>& shape) {
  COVEY_ASSIGN(ModelSpec row, preset_model("logistic", shape, 1));
  return std::move(row.input_shape);
}

}  // namespace

double learning_rate_of(const RunConfig& config, std::uint32_t round) {
  const LearningRateSchedule& schedule = config.client.schedule;
  const double warmed =
      round < schedule.warmup ? static_cast<double>(round) / schedule.warmup : 1.0;
  return config.client.learning_rate * warmed * decay_of(schedule, round, config.num_rounds);
}

Result<ModelSpec> model_spec_of(const RunConfig& config,
                                const std::vector<std::uint32_t>& input_shape,
                                std::uint32_t classes) {
  const ModelConfig& model = config.model;
  if (!model.torchscript.empty()) {
    return ModelSpec{.input_shape = input_shape, .loss = model.loss, .target = model.target};
  }
  if (model.layers.empty()) {
    COVEY_ASSIGN(ModelSpec spec, preset_model(model.preset, input_shape, classes));
    spec.initialisation = model.initialisation;
    return spec;
  }
  COVEY_TRY(check_outputs(model, classes));
  ModelSpec spec{.input_shape = input_shape,
                 .layers = model.layers,
                 .loss = model.loss,
                 .target = model.target,
                 .initialisation = model.initialisation};
  // A network that starts with a dense layer takes an image as one row, as the presets do; on
  // [steps, features] a dense layer works at every step.
  if (model.layers.front().kind == LayerKind::kDense && input_shape.size() == 3) {
    COVEY_ASSIGN(spec.input_shape, as_row(input_shape));
  }
  return spec;
}

}  // namespace covey
