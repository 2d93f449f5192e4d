#include <string_view>

#include "run_file_keys.hpp"

namespace covey {
namespace {

constexpr std::string_view kSecureMode =
    "secure-aggregation.mode = \"honest-but-curious\" or \"malicious-server\"";

std::string_view unmet_client_need(std::string_view name, const ClientConfig& client) {
  const OptimizerKind kind = client.optimizer.kind;
  if (name == "momentum") {
    const bool used = kind == OptimizerKind::kMomentum || kind == OptimizerKind::kNesterov;
    return used ? "" : "client.optimizer = \"momentum\" or \"nesterov\"";
  }
  if (name == "beta1" || name == "beta2" || name == "epsilon") {
    const bool used = kind == OptimizerKind::kAdam || kind == OptimizerKind::kAdamW;
    return used ? "" : "client.optimizer = \"adam\" or \"adamw\"";
  }
  const ScheduleKind schedule = client.schedule.kind;
  if (name == "lr-step") {
    return schedule == ScheduleKind::kStep ? "" : "client.lr-schedule = \"step\"";
  }
  if (name == "lr-decay") {
    const bool used = schedule == ScheduleKind::kStep || schedule == ScheduleKind::kExponential ||
                      schedule == ScheduleKind::kInverse;
    return used ? "" : "client.lr-schedule = \"step\", \"exponential\" or \"inverse\"";
  }
  return "";
}

std::string_view unmet_sum_need(std::string_view name, const RunConfig& config) {
  if (name == "mode") return "";
  if (config.secure_aggregation.mode == "off") return kSecureMode;
  if (name == "max-weight" && config.privacy.mechanism != "none") {
    return "privacy.mechanism = \"none\": under differential privacy every update weighs the same";
  }
  return "";
}

std::string_view unmet_privacy_need(std::string_view name, const PrivacyConfig& privacy) {
  if (name == "mechanism") return "";
  if (privacy.mechanism == "none") {
    return "a privacy.mechanism (central-gaussian, local-gaussian, discrete-gaussian, skellam or "
           "dp-ftrl)";
  }
  const bool of_adaptive = name == "target-quantile" || name == "clip-learning-rate";
  return of_adaptive && privacy.clip != "adaptive" ? "privacy.clip = \"adaptive\"" : "";
}

std::string_view unmet_selection_need(std::string_view name, const RunConfig& config) {
  if (name == "max-update-norm" && config.secure_aggregation.mode != "off") {
    return config.selection.max_update_norm > 0
               ? "secure-aggregation.mode = \"off\": nobody sees the norm of a masked update"
               : "";
  }
  const bool poisson = config.selection.policy == "poisson";
  if (poisson && name == "over-selection" && config.selection.over_selection > 1) {
    return "another selection.policy than \"poisson\", which draws by fraction-fit alone";
  }
  if (poisson && name == "min-fit-clients" && config.selection.min_fit_clients > 1) {
    return "another selection.policy than \"poisson\", which draws by fraction-fit alone";
  }
  return "";
}

}  // namespace

std::string_view unmet_need(const RunKey& key, const RunConfig& config) {
  if (key.table == "client") return unmet_client_need(key.name, config.client);
  if (key.table == "secure-aggregation") return unmet_sum_need(key.name, config);
  if (key.table == "privacy") return unmet_privacy_need(key.name, config.privacy);
  if (key.table == "selection") return unmet_selection_need(key.name, config);
  const bool in_a_sum =
      key.table == "fleet" && key.name == "dropout-at" && config.fleet.dropout_at != "training";
  return in_a_sum && config.secure_aggregation.mode == "off" ? kSecureMode : "";
}

}  // namespace covey
