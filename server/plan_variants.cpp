#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/models/engine.hpp>
#include <covey/server/plan_variants.hpp>
#include <optional>
#include <utility>

#include "sub_network.hpp"

namespace covey::server {
namespace {

Error class_error(const ClientClassConfig& config, std::string_view key,
                  std::string_view sentence) {
  return invalid_argument(
      fmt::format("client.class.{}{}{}: {}", config.name, key.empty() ? "" : ".", key, sentence));
}

/// The key that makes this class's network or numbers other than the run's; "" where none does.
std::string_view differing_key(const ClientClassConfig& config, const RunConfig& run) {
  if (config.width != 1) return "width";
  return config.precision && *config.precision != run.client.precision ? "precision" : "";
}

Result<void> check_class(const ClientClassConfig& config, const RunConfig& run,
                         const strategies::Strategy& strategy) {
  if (!(config.width > 0 && config.width <= 1)) {
    return class_error(config, "width",
                       fmt::format("must be above 0 and at most 1, not {}", config.width));
  }
  if (config.local_epochs == 0U) return class_error(config, "local-epochs", "must be at least 1");
  if (run.secure_aggregation.mode != "off") {
    return class_error(
        config, "",
        "the devices of a secure sum agree on one plan, so classes of devices cannot have "
        "plans of their own with secure-aggregation.mode = \"" +
            run.secure_aggregation.mode + "\"");
  }
  const std::string_view key = differing_key(config, run);
  if (key.empty()) return {};
  if (run.privacy.mechanism != "none") {
    return class_error(
        config, key,
        "differential privacy counts with one network that every device trains alike; "
        "leave it out with privacy.mechanism = \"" +
            run.privacy.mechanism + "\"");
  }
  const auto* sums = dynamic_cast<const strategies::SumStrategy*>(&strategy);
  if (sums == nullptr) {
    return class_error(
        config, key,
        fmt::format("strategy.name = \"{}\" compares whole updates with each other, which "
                    "must come of one network trained in one precision; choose one that "
                    "sums them, such as fedavg",
                    strategy.name()));
  }
  if (config.width < 1 && sums->needs_base()) {
    return class_error(
        config, key,
        fmt::format("strategy.name = \"{}\" moves the model to where a device would have "
                    "it, which a device that trains a part of it cannot say",
                    strategy.name()));
  }
  if (strategy.num_scalars() > 0 || !strategy.sends_difference()) {
    return class_error(
        config, key,
        fmt::format("strategy.name = \"{}\" weighs an update by its own norm or loss, "
                    "which do not compare between networks or precisions; local-epochs "
                    "and batch-size of a class may differ",
                    strategy.name()));
  }
  return {};
}

/// What precision says of the model as it is sent; what a class's own leaves of the run's
/// compressors.
Result<void> set_precision(const ClientClassConfig& config, const RunConfig& run,
                           PlanVariant& variant) {
  variant.precision = config.precision.value_or(run.client.precision);
  const auto sent = model_encoding(variant.precision);
  if (!sent.ok()) return class_error(config, "precision", sent.error().message);
  variant.sent = *sent;
  return {};
}

/// Behind set_network: what an update may take depends on the network.
Result<void> set_compressors(const ClientClassConfig& config, const RunConfig& run,
                             PlanVariant& variant) {
  RunConfig of_class = run;
  of_class.client.precision = variant.precision;
  if (const auto problem = check_compressors(of_class); !problem.ok()) {
    return class_error(config, "precision", problem.error().message);
  }
  auto offered = offer_compressors(compressors_of(of_class), variant.layout);
  if (!offered.ok()) return class_error(config, "", offered.error().message);
  variant.compressors = std::move(*offered);
  return {};
}

/// The network of the class and its place in the run's.
Result<void> set_network(const ClientClassConfig& config, const TrainingPlan& plan,
                         const ModelLayout& layout, PlanVariant& variant) {
  const bool same_precision = variant.precision == plan.precision;
  if (config.width == 1 && same_precision) return {};
  if (config.width < 1) {
    auto part = narrowed(plan.model, config.width);
    if (!part.ok()) return class_error(config, "width", part.error().message);
    variant.model = std::move(*part);
  } else if (!plan.model.torchscript.empty()) {
    return class_error(config, "precision",
                       "a TorchScript file's network is trained in one precision");
  }
  const auto network = models::make_network(variant.model, variant.precision);
  if (!network.ok()) {
    return class_error(config, same_precision ? "width" : "precision", network.error().message);
  }
  variant.layout = network->layout();
  if (variant.layout.tensors().size() != layout.tensors().size()) {
    return class_error(config, "precision",
                       fmt::format("\"{}\" trains other parameters than client.precision = \"{}\": "
                                   "\"qat-int8\" is for all devices or for none",
                                   variant.precision, plan.precision));
  }
  if (config.width < 1) {
    variant.indices = indices_of_part(plan.model, layout, variant.model, variant.layout);
  }
  return {};
}

PlanVariant of_run(const TrainingPlan& plan, const ModelLayout& layout) {
  PlanVariant variant;
  variant.model = plan.model;
  variant.local_epochs = plan.local_epochs;
  variant.batch_size = plan.batch_size;
  variant.precision = plan.precision;
  variant.layout = layout;
  return variant;
}

}  // namespace

TrainingPlan PlanVariant::plan_of(const TrainingPlan& round_plan) const {
  TrainingPlan plan = round_plan;
  plan.model = model;
  plan.local_epochs = local_epochs;
  plan.batch_size = batch_size;
  plan.precision = precision;
  return plan;
}

void PlanVariant::gather(std::span<const float> model_vector, std::span<float> part) const {
  COVEY_ASSERT(part.size() == indices.size());
  for (std::size_t i = 0; i < indices.size(); ++i) part[i] = model_vector[indices[i]];
}

void PlanVariant::scatter(std::span<const float> part, std::span<float> model_vector) const {
  COVEY_ASSERT(part.size() == indices.size());
  std::ranges::fill(model_vector, 0.0f);
  for (std::size_t i = 0; i < indices.size(); ++i) model_vector[indices[i]] = part[i];
}

Result<PlanVariants> PlanVariants::make(const RunConfig& config, const TrainingPlan& plan,
                                        const ModelLayout& layout,
                                        const strategies::Strategy& strategy) {
  PlanVariants variants;
  PlanVariant base = of_run(plan, layout);
  COVEY_ASSIGN(base.sent, model_encoding(plan.precision));
  COVEY_ASSIGN(base.compressors, offer_compressors(compressors_of(config), layout));
  variants.variants_.push_back(base);
  for (const ClientClassConfig& of_class : config.client.classes) {
    if (of_class.name.empty() || variants.number_of(of_class.name) != 0) {
      return class_error(of_class, "", "classes have names, each its own");
    }
    COVEY_TRY(check_class(of_class, config, strategy));
    PlanVariant variant = base;
    variant.device_class = of_class.name;
    variant.local_epochs = of_class.local_epochs.value_or(base.local_epochs);
    variant.batch_size = of_class.batch_size.value_or(base.batch_size);
    COVEY_TRY(set_precision(of_class, config, variant));
    COVEY_TRY(set_network(of_class, plan, layout, variant));
    COVEY_TRY(set_compressors(of_class, config, variant));
    variants.variants_.push_back(std::move(variant));
  }
  return variants;
}

std::uint32_t PlanVariants::number_of(std::string_view device_class) const {
  if (device_class.empty()) return 0;
  const auto found = std::ranges::find(variants_, device_class, &PlanVariant::device_class);
  return found == variants_.end() ? 0 : static_cast<std::uint32_t>(found - variants_.begin());
}

bool PlanVariants::has_parts() const {
  return std::ranges::any_of(variants_,
                             [](const PlanVariant& variant) { return !variant.whole(); });
}

void PlanVariants::average_by_coordinate(std::span<const double> weights,
                                         std::span<double> sum) const {
  COVEY_ASSERT(weights.size() == variants_.size());
  double whole = 0;
  std::vector<double> trained(sum.size());  // weight of the parts that train a coordinate
  for (std::size_t number = 0; number < variants_.size(); ++number) {
    if (variants_[number].whole()) {
      whole += weights[number];
    } else if (weights[number] > 0) {
      for (const std::uint32_t index : variants_[number].indices) trained[index] += weights[number];
    }
  }
  double all = 0;
  for (const double weight : weights) all += weight;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const double weight = whole + trained[i];
    if (weight > 0) sum[i] *= all / weight;
  }
}

}  // namespace covey::server
