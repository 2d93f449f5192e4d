#include <algorithm>
#include <charconv>
#include <cmath>
#include <covey/compressor_spec.hpp>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace covey {
namespace {

struct Named {
  std::string_view name;
  CompressorKind kind;
  std::uint32_t bits = 0;
};
constexpr Named kNames[] = {
    {"fp32", CompressorKind::kFp32},
    {"fp16", CompressorKind::kFp16},
    {"bf16", CompressorKind::kBf16},
    {"int8", CompressorKind::kInt8},
    {"int4", CompressorKind::kLinear, 4},
    {"int2", CompressorKind::kLinear, 2},
    {"sign", CompressorKind::kSign},
    {"drive", CompressorKind::kDrive},
    {"eden-1", CompressorKind::kEden, 1},
    {"eden-2", CompressorKind::kEden, 2},
    {"eden-3", CompressorKind::kEden, 3},
    {"eden-4", CompressorKind::kEden, 4},
    {"top-k", CompressorKind::kTopK},
    {"random-k", CompressorKind::kRandomK},
    {"rate-distortion", CompressorKind::kRateDistortion},
};
constexpr std::string_view kErrorFeedback = "error-feedback";
constexpr std::string_view kZstd = "zstd";
constexpr double kDefaultStep = 0.5;  // Mitchell et al. 2022
/// Rounding to nearest loses at most STEP^2 / 4 of an update's squares: all of them from 2 on.
constexpr double kStepWithErrorFeedback = 2;

bool is_sparse(CompressorKind kind) {
  return kind == CompressorKind::kTopK || kind == CompressorKind::kRandomK;
}
/// Biased beyond repair without it.
bool needs_error_feedback(CompressorKind kind) {
  return kind == CompressorKind::kTopK || kind == CompressorKind::kSign;
}

std::string all_names() {
  std::string names;
  for (const Named& named : kNames) {
    names.append(names.empty() ? "" : ", ").append(named.name);
    if (is_sparse(named.kind)) names.append(":SHARE");
    if (named.kind == CompressorKind::kRateDistortion) names.append("[:STEP]");
  }
  return names;
}

std::optional<double> number_in(std::string_view text) {
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return value;
}

Result<void> read_parameter(CompressorSpec& spec, std::string_view name,
                            std::optional<std::string_view> text) {
  const bool rates = spec.kind == CompressorKind::kRateDistortion;
  if (!text) {
    if (is_sparse(spec.kind)) {
      return invalid_argument(fmt::format("compressor \"{0}\" needs the share of values to send, for "
                                          "instance \"{0}:0.01\"", name));
    }
    spec.parameter = rates ? kDefaultStep : 0;
    return {};
  }
  if (!is_sparse(spec.kind) && !rates) {
    return invalid_argument(fmt::format("compressor \"{}\" takes no parameter \":{}\"", name, *text));
  }
  const auto value = number_in(*text);
  if (!value || !(*value > 0) || (is_sparse(spec.kind) && *value > 1)) {
    return invalid_argument(fmt::format("compressor \"{}:{}\": the parameter must be a number above 0{}",
                                        name, *text, rates ? "" : " and at most 1"));
  }
  spec.parameter = *value;
  return {};
}

}  // namespace

Result<CompressorSpec> parse_compressor(std::string_view text) {
  const std::string_view whole = text;
  CompressorSpec spec;
  std::vector<std::string_view> options;
  while (true) {
    // A "+" behind an exponent ("1e+2") does not begin an option: options begin with a letter.
    const std::size_t plus = text.rfind('+');
    if (plus == std::string_view::npos || plus + 1 == text.size() ||
        (text[plus + 1] >= '0' && text[plus + 1] <= '9')) {
      break;
    }
    options.push_back(text.substr(plus + 1));
    text = text.substr(0, plus);
  }
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const auto found = std::ranges::find(kNames, name, &Named::name);
  if (found == std::end(kNames)) {
    return invalid_argument(
        fmt::format("there is no compressor \"{}\"; there are {}", whole, all_names()));
  }
  spec.kind = found->kind;
  spec.bits = found->bits;
  COVEY_TRY(read_parameter(spec, name,
                           colon == std::string_view::npos
                               ? std::nullopt
                               : std::optional(text.substr(colon + 1))));
  spec.error_feedback = needs_error_feedback(spec.kind);
  for (const std::string_view option : options) {
    if (option == kErrorFeedback) {
      spec.error_feedback = true;
    } else if (option == kZstd) {
      spec.zstd = true;
    } else {
      return invalid_argument(fmt::format("compressor \"{}\": there is no option \"+{}\"; there are +{} "
                                          "and +{}", whole, option, kErrorFeedback, kZstd));
    }
  }
  if (spec.kind == CompressorKind::kFp32) spec.error_feedback = false;  // nothing is lost
  if (spec.kind == CompressorKind::kRateDistortion && spec.error_feedback &&
      spec.parameter >= kStepWithErrorFeedback) {
    return invalid_argument(fmt::format(
        "compressor \"{}\": with error feedback the step must be below {}, or values of equal "
        "magnitude would never be sent", whole, kStepWithErrorFeedback));
  }
  return spec;
}

std::string to_string(const CompressorSpec& spec) {
  const auto found = std::ranges::find_if(
      kNames, [&](const Named& named) { return named.kind == spec.kind && named.bits == spec.bits; });
  std::string text(found == std::end(kNames) ? "?" : found->name);
  if (spec.parameter > 0) text += fmt::format(":{}", spec.parameter);
  if (spec.error_feedback && !needs_error_feedback(spec.kind)) text += fmt::format("+{}", kErrorFeedback);
  if (spec.zstd) text += fmt::format("+{}", kZstd);
  return text;
}

const std::vector<std::string>& compressor_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Named& named : kNames) all.emplace_back(named.name);
    all.emplace_back(kErrorFeedback);
    all.emplace_back(kZstd);
    return all;
  }();
  return names;
}

bool supports(const std::vector<std::string>& names, const CompressorSpec& spec) {
  const auto has = [&](std::string_view name) { return std::ranges::find(names, name) != names.end(); };
  const auto found = std::ranges::find_if(
      kNames, [&](const Named& named) { return named.kind == spec.kind && named.bits == spec.bits; });
  return found != std::end(kNames) && has(found->name) && (!spec.error_feedback || has(kErrorFeedback)) &&
         (!spec.zstd || has(kZstd));
}

}  // namespace covey
