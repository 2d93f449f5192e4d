#include <algorithm>
#include <string_view>
#include <vector>

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
  if (name == "bits" && sum_encoding_of(config).sets_bits) {
    return "a client.compressor that leaves the bits open (auto, fp32, random-k)";
  }
  if (name == "adaptive-clip" && config.privacy.mechanism != "none") {
    return "privacy.mechanism = \"none\": noise is counted on one lattice for the whole run";
  }
  if (name == "adaptive-clip" && sum_encoding_of(config).sets_bits) {
    return "a client.compressor that leaves the bits open: few bits always adapt";
  }
  if (name == "rotation" && sum_encoding_of(config).sets_rotation) {
    return "a client.compressor that does not rotate anyway, as eden does";
  }
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

std::string_view unmet_asynchronous_need(std::string_view name, const AsynchronousConfig& config) {
  if (name == "buffer") return "";
  if (!config.enabled()) return "asynchronous.buffer above 0: rounds are synchronous";
  if (name == "exponent" && config.staleness != "polynomial") {
    return "asynchronous.staleness = \"polynomial\"";
  }
  const bool of_hinge = name == "hinge-slope" || name == "hinge-from";
  return of_hinge && config.staleness != "hinge" ? "asynchronous.staleness = \"hinge\"" : "";
}

/// Asynchronous aggregation has no cohorts, and so none of what these say of one.
std::string_view unmet_cohort_need(std::string_view name, const AsynchronousConfig& config) {
  if (!config.enabled()) return "";
  if (name == "quorum" || name == "over-selection") {
    return "asynchronous.buffer = 0: a round in which nobody is waited for";
  }
  const bool of_goal =
      name == "fraction-fit" || name == "min-fit-clients" || name == "min-available-clients";
  return of_goal && config.concurrency > 0
             ? "asynchronous.concurrency = 0, which then is the goal of [selection]"
             : "";
}

std::string_view unmet_selection_need(std::string_view name, const RunConfig& config) {
  if (const auto need = unmet_cohort_need(name, config.asynchronous); !need.empty()) return need;
  if (name == "max-update-norm" && config.secure_aggregation.mode != "off") {
    return config.selection.max_update_norm > 0
               ? "secure-aggregation.mode = \"off\": nobody sees the norm of a masked update"
               : "";
  }
  const std::string& policy = config.selection.policy;
  if (name == "candidates" && policy != "power-of-choice") {
    return "selection.policy = \"power-of-choice\"";
  }
  const bool of_oort = name == "exploration" || name == "exploration-decay" ||
                       name == "exploration-min" || name == "round-penalty";
  if (of_oort && policy != "oort") return "selection.policy = \"oort\"";
  const bool poisson = policy == "poisson";
  if (poisson && name == "over-selection" && config.selection.over_selection > 1) {
    return "another selection.policy than \"poisson\", which draws by fraction-fit alone";
  }
  if (poisson && name == "min-fit-clients" && config.selection.min_fit_clients > 1) {
    return "another selection.policy than \"poisson\", which draws by fraction-fit alone";
  }
  return "";
}

std::string_view unmet_fleet_need(std::string_view name, const RunConfig& config) {
  const FleetConfig& fleet = config.fleet;
  if (name == "dropout-at") {
    const bool in_a_sum = fleet.dropout_at != "training";
    return in_a_sum && config.secure_aggregation.mode == "off" ? kSecureMode : "";
  }
  static const std::vector<RunKey> traits = trait_keys("fleet");
  if (std::ranges::find(traits, name, &RunKey::name) == traits.end()) return "";
  if (!fleet.mix.empty()) return "fleet.mix = \"\": a mix brings all of its devices' traits";
  if (!fleet.classes.empty()) {
    return "a fleet of one kind: every [[fleet.class]] brings its own traits";
  }
  const bool of_capacity = name == "gflops" || name == "up-mbit-s" || name == "down-mbit-s";
  if (of_capacity && !fleet.capacity_trace.empty()) {
    return "fleet.capacity-trace = \"\": the trace brings speeds and bandwidths";
  }
  if (name == "availability" && !fleet.availability_trace.empty()) {
    return "fleet.availability-trace = \"\": the trace brings it";
  }
  return "";
}

std::string_view unmet_attack_need(std::string_view name, const AttackConfig& attack) {
  if (name == "kind") return "";
  if (attack.kind == "none") {
    return "an attack.kind (label-flip, sign-flip, gaussian, alie, ipm or backdoor)";
  }
  if (name == "scale" && (attack.kind == "label-flip" || attack.kind == "alie")) {
    return "attack.kind = \"sign-flip\", \"gaussian\", \"ipm\" or \"backdoor\"";
  }
  return name == "target-label" && attack.kind != "backdoor" ? "attack.kind = \"backdoor\"" : "";
}

}  // namespace

std::string_view unmet_need(const RunKey& key, const RunConfig& config) {
  if (key.table == "client") return unmet_client_need(key.name, config.client);
  if (key.table == "secure-aggregation") return unmet_sum_need(key.name, config);
  if (key.table == "privacy") return unmet_privacy_need(key.name, config.privacy);
  if (key.table == "selection") return unmet_selection_need(key.name, config);
  if (key.table == "asynchronous") return unmet_asynchronous_need(key.name, config.asynchronous);
  if (key.table == "fleet") return unmet_fleet_need(key.name, config);
  if (key.table == "attack") return unmet_attack_need(key.name, config.attack);
  if (key.table == "server" && key.name == "model-history") {
    return config.server.model_compressor == "off"
               ? ""
               : "server.model-compressor = \"off\": its steps take the place of differences";
  }
  if (key.table == "faults" && key.name != "seed") {
    return config.faults.seed == 0 ? "a faults.seed above 0: without it nothing goes wrong" : "";
  }
  if (key.table == "data" && key.name == "on-demand") {
    const bool possible =
        config.data.source == "synthetic" && config.partition.scheme == "natural";
    return possible ? "" : "data.source = \"synthetic\" and partition.scheme = \"natural\"";
  }
  return "";
}

}  // namespace covey
