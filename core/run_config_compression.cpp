#include <fmt/format.h>

#include <algorithm>
#include <covey/compressor_spec.hpp>
#include <covey/run_config.hpp>
#include <string>
#include <utility>

#include "run_file_keys.hpp"

// What client.compressor asks for, and what it does not go with.
namespace covey {
namespace {

constexpr const char* kKey = "client.compressor";
constexpr const char* kAuto = "auto";

bool is_secure(const RunConfig& config) { return config.secure_aggregation.mode != "off"; }
bool is_private(const RunConfig& config) { return config.privacy.mechanism != "none"; }

/// client.compressor with "auto" resolved.
std::vector<std::string> resolved(const RunConfig& config) {
  const ClientConfig& client = config.client;
  if (client.compressors != std::vector<std::string>{kAuto}) return client.compressors;
  // What is masked or made private is a vector of floating point, whatever trained it.
  if (is_secure(config) || is_private(config)) return {"fp32"};
  return {client.precision == "qat-int8" ? "fp32" : client.precision};
}

/// Devices that train in int8 keep no weights beside the update that they make; those that train in
/// bf16 can say it exactly in bf16, and coarser where a compressor rounds as it sees fit.
bool fits_precision(const std::string& precision, const std::string& name) {
  if (precision == "int8") return name == "int8";
  return precision != "bf16" || (name != "fp32" && name != "int8");
}

std::optional<KeyProblem> precision_problem(const RunConfig& config,
                                            const std::vector<std::string>& names) {
  const std::string& precision = config.client.precision;
  if (is_secure(config) || is_private(config)) return std::nullopt;  // privacy_problem
  for (const std::string& name : names) {
    if (fits_precision(precision, name)) continue;
    return KeyProblem{
        kKey,
        fmt::format("\"{}\" does not go with client.precision = \"{}\", whose devices hold no "
                    "weights in it; use \"auto\" or \"{}\"",
                    name, precision, precision)};
  }
  return std::nullopt;
}

/// A masked update is one of a sum: what each device decides for itself is lost in it.
std::optional<KeyProblem> masked_problem(const std::string& name, const CompressorSpec& spec) {
  constexpr const char* kLinear =
      "; those that add up are \"int8\", \"int4\", \"int2\", \"eden-1\" to \"eden-4\" and "
      "\"random-k:SHARE\" (or \"auto\" with secure-aggregation.bits)";
  if (!spec.linear()) {
    return KeyProblem{
        kKey, fmt::format("\"{}\" encodes each device's update in a way of its own, so masked "
                          "updates would not add up{}",
                          name, kLinear)};
  }
  if (spec.zstd) {
    return KeyProblem{kKey, fmt::format("\"{}\": a masked update is as good as random, and nothing "
                                        "makes that smaller; leave out \"+zstd\"",
                                        name)};
  }
  return std::nullopt;
}

std::optional<KeyProblem> private_problem(const RunConfig& config, const std::string& name,
                                          const CompressorSpec& spec) {
  const std::string& mechanism = config.privacy.mechanism;
  if (spec.error_feedback) {
    return KeyProblem{
        kKey,
        fmt::format("\"{}\" adds to an update what was lost of earlier ones, which its privacy "
                    "is not counted with; leave out error feedback with privacy.mechanism = "
                    "\"{}\"",
                    name, mechanism)};
  }
  if (!is_secure(config)) {
    return KeyProblem{
        kKey,
        fmt::format("\"{}\" rounds an update after it was clipped and noised, which its "
                    "privacy is not counted with; use \"auto\" with privacy.mechanism = \"{}\"",
                    name, mechanism)};
  }
  if (spec.kind == CompressorKind::kRandomK) {
    return KeyProblem{
        kKey,
        fmt::format("\"{}\" scales the sum up by what it leaves out, and with it the noise of "
                    "privacy.mechanism = \"{}\", which is counted on a whole vector; use "
                    "\"int8\", \"int4\", \"int2\" or \"eden-1\" to \"eden-4\"",
                    name, mechanism)};
  }
  return std::nullopt;
}

/// The bits of a coordinate that a compressor leaves no choice of; 0: it does.
std::uint32_t bits_of(const CompressorSpec& spec) {
  // One bit leaves no step between the clips of a common lattice.
  constexpr std::uint32_t kFewestSumBits = 2;
  if (spec.kind == CompressorKind::kInt8) return 8;
  return spec.bits == 0 ? 0 : std::max(spec.bits, kFewestSumBits);
}

}  // namespace

std::vector<std::string> compressors_of(const RunConfig& config) {
  std::vector<std::string> names = resolved(config);
  if (names.empty()) names.emplace_back("fp32");
  return names;
}

std::string compressor_of(const RunConfig& config) { return compressors_of(config).front(); }

std::optional<KeyProblem> compressor_problem(const RunConfig& config) {
  const std::vector<std::string> names = resolved(config);
  if (names.empty()) return KeyProblem{kKey, "name at least one compressor, or \"auto\""};
  if (names.size() > 1 && is_secure(config)) {
    return KeyProblem{kKey,
                      "the devices of a secure sum encode their updates alike; name one "
                      "compressor"};
  }
  for (const std::string& name : names) {
    const auto spec = parse_compressor(name);
    if (!spec.ok()) return KeyProblem{kKey, spec.error().message};
    if (name == "fp32") continue;
    if (is_secure(config)) {
      if (auto problem = masked_problem(name, *spec)) return problem;
    }
    if (!is_private(config)) continue;
    if (auto problem = private_problem(config, name, *spec)) return problem;
  }
  return precision_problem(config, names);
}

Result<void> check_compressors(const RunConfig& config) {
  if (const auto problem = compressor_problem(config)) {
    return invalid_argument(problem->key + ": " + problem->sentence);
  }
  return {};
}

SumEncoding sum_encoding_of(const RunConfig& config) {
  const SecureAggregationConfig& sums = config.secure_aggregation;
  SumEncoding encoding{sums.bits, sums.rotation, 1, false, false};
  const auto spec = parse_compressor(compressor_of(config));
  if (!spec.ok()) return encoding;
  if (const std::uint32_t bits = bits_of(*spec); bits > 0) {
    encoding.bits = bits;
    encoding.sets_bits = true;
  }
  if (spec->kind == CompressorKind::kEden) encoding.rotation = encoding.sets_rotation = true;
  if (spec->kind == CompressorKind::kRandomK) encoding.subsample = spec->parameter;
  return encoding;
}

}  // namespace covey
