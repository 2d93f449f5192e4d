#include <covey/run_config.hpp>
#include <string>

#include "run_file_keys.hpp"

namespace covey {
namespace {

ThreatModel threat_model_of(const std::string& mode) {
  if (mode == "off") return ThreatModel::kNone;
  return mode == to_string(ThreatModel::kMaliciousServer) ? ThreatModel::kMaliciousServer
                                                          : ThreatModel::kHonestButCurious;
}

}  // namespace

std::optional<KeyProblem> privacy_problem(const RunConfig& config) {
  const bool secure = config.secure_aggregation.mode != "off";
  const bool is_private = config.privacy.mechanism != "none";
  const ClientConfig& client = config.client;
  if (!secure && !is_private) return std::nullopt;
  if (client.precision == "int8") {
    return KeyProblem{"client.precision",
                      std::string("\"int8\" makes updates in int8, with scales of each device's "
                                  "own; ") +
                          (secure ? "secure aggregation" : "differential privacy") +
                          " needs them in floating point, as fp32, bf16 and qat-int8 make them"};
  }
  if (secure && !is_private && !(config.secure_aggregation.max_weight > 0)) {
    return KeyProblem{"secure-aggregation.max-weight",
                      "is missing: the largest weight of an update, e.g. the most examples a "
                      "device has (fedavg, fedprox); a heavier update counts as this"};
  }
  return std::nullopt;
}

bool adapts_clip(const RunConfig& config) {
  if (config.secure_aggregation.mode == "off" || config.privacy.mechanism != "none") return false;
  return config.secure_aggregation.adaptive_clip || sum_encoding_of(config).sets_bits;
}

Result<SecureAggregationPlan> secure_aggregation_plan_of(const RunConfig& config,
                                                         std::uint32_t max_devices) {
  const SecureAggregationConfig& from = config.secure_aggregation;
  const ThreatModel threat_model = threat_model_of(from.mode);
  if (threat_model == ThreatModel::kNone) return SecureAggregationPlan{};
  if (auto problem = privacy_problem(config)) {
    return invalid_argument(problem->key + ": " + problem->sentence);
  }
  COVEY_TRY(check_compressors(config));
  const bool is_private = config.privacy.mechanism != "none";
  const SumEncoding encoding = sum_encoding_of(config);
  return SecureAggregationPlan{.threat_model = threat_model,
                               .cipher = from.cipher == to_string(MaskCipher::kChaCha20)
                                             ? MaskCipher::kChaCha20
                                             : MaskCipher::kAes128Ctr,
                               .complete_graph = from.graph == "complete",
                               .bits = encoding.bits,
                               .clip = from.clip,
                               // Under differential privacy every device counts the same.
                               .max_weight = is_private ? 1 : from.max_weight,
                               .rotation = encoding.rotation,
                               .max_devices = max_devices,
                               .dropout = from.dropout,
                               .corruption = from.corruption,
                               .subsample = encoding.subsample};
}

}  // namespace covey
