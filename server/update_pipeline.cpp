#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/server/update_pipeline.hpp>
#include <exception>

namespace covey::server {

namespace {

/// Sum of squares in double. A finite float squared is below 2^256, so the sum stays finite for any
/// d < 2^767: it is finite exactly when every value is, and one pass checks both norm and
/// finiteness. Sixteen lanes let the compiler use vector registers without reordering (the bits are
/// the same for every instruction set).
double sum_of_squares(std::span<const float> values) {
  constexpr std::size_t kLanes = 16;
  std::array<double, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      lanes[lane] += value * value;
    }
  }
  double total = 0;
  for (const double lane : lanes) total += lane;
  for (; i < values.size(); ++i) total += static_cast<double>(values[i]) * values[i];
  return total;
}

bool all_finite(std::span<const float> values) { return std::isfinite(sum_of_squares(values)); }

bool aligned_for_float(const SharedBytes& bytes) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) == 0;
}

/// `bytes` hold little-endian floats and are aligned for them.
std::span<const float> as_floats(const SharedBytes& bytes) {
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

Result<void> check_start(const ParameterVector& model, std::span<const float> state,
                         const UpdatePipeline::Format& format) {
  if (model.size() != format.layout.size()) {
    return invalid_argument(
        fmt::format("the initial model has {} parameters, but the run's model has {}", model.size(),
                    format.layout.size()));
  }
  if (!all_finite(model.span()) || !all_finite(state)) {
    return invalid_argument(
        "the initial model or the strategy's state has a value that is not finite");
  }
  if (!std::isfinite(format.max_update_norm) || format.max_update_norm < 0) {
    return invalid_argument(fmt::format(
        "selection.max-update-norm must be finite and at least 0, not {}", format.max_update_norm));
  }
  return {};
}

}  // namespace

Result<UpdatePipeline::Format> UpdatePipeline::Format::of(const TrainingPlan& plan,
                                                          ModelLayout layout,
                                                          std::size_t num_scalars) {
  Format format;
  format.layout = std::move(layout);
  COVEY_ASSIGN(format.model, model_encoding(plan.precision));
  const auto update = encoding_named(plan.compressor);
  if (!update) {
    return invalid_argument(fmt::format(
        "there is no compressor \"{}\"; there are fp32, bf16 and int8", plan.compressor));
  }
  format.update = *update;
  format.max_update_norm = plan.max_update_norm;
  format.seed = plan.seed;
  format.privacy = plan.privacy;
  if (plan.secure_aggregation.enabled()) {
    COVEY_ASSIGN(format.sum,
                 privacy::SumFormat::make(plan.secure_aggregation, plan.privacy,
                                          format.layout.size(),
                                          privacy::num_sum_scalars(plan.privacy, num_scalars)));
  }
  return format;
}

std::size_t UpdatePipeline::Format::reported_scalars(std::size_t strategy_scalars) const {
  if (sum) return 0;
  return privacy.enabled() ? privacy::num_sum_scalars(privacy, 0) : strategy_scalars;
}

Result<UpdatePipeline> UpdatePipeline::make(std::unique_ptr<strategies::Strategy> strategy,
                                            ParameterVector model, std::vector<float> state,
                                            Format format, PipelinePrivacy privacy) {
  if (strategy == nullptr) return invalid_argument("an update pipeline needs a strategy");
  COVEY_TRY(check_start(model, state, format));
  const std::size_t strategy_state = strategy->state_size(model.size());
  const std::size_t state_size =
      strategy_state + (privacy.release ? privacy.release->state_size() : 0);
  if (!state.empty() && state.size() != state_size) {
    return invalid_argument(fmt::format(
        "the strategy '{}' keeps {} floats of state for this model, but {} were given: they "
        "belong to another strategy or model",
        strategy->name(), state_size, state.size()));
  }

  if (privacy.release && !state.empty()) {
    COVEY_TRY(privacy.release->restore(std::span(state).subspan(strategy_state)));
  }
  state.resize(strategy_state);

  UpdatePipeline pipeline;
  pipeline.sum_strategy_ = dynamic_cast<strategies::SumStrategy*>(strategy.get());
  pipeline.individual_strategy_ = dynamic_cast<strategies::IndividualStrategy*>(strategy.get());
  if (pipeline.sum_strategy_ == nullptr && pipeline.individual_strategy_ == nullptr) {
    return invalid_argument(
        fmt::format("the strategy '{}' derives from neither SumStrategy nor IndividualStrategy",
                    strategy->name()));
  }
  if (format.sum && pipeline.sum_strategy_ == nullptr) {
    return invalid_argument(
        fmt::format("strategy {} must see each update, and secure aggregation shows only their sum; "
                    "leave one of them (secure-aggregation.mode = \"off\")",
                    strategy->name()));
  }
  if (format.sum) {
    pipeline.packed_sum_.resize(format.sum->packed.words());
  } else if (pipeline.sum_strategy_ != nullptr) {
    pipeline.sum_ = strategies::ExactSum(model.size());
  }
  pipeline.strategy_ = std::move(strategy);
  pipeline.model_ = std::move(model);
  pipeline.state_ = std::move(state);
  pipeline.format_ = std::move(format);
  pipeline.privacy_ = std::move(privacy);
  pipeline.begin();
  return pipeline;
}

void UpdatePipeline::begin(RoundNumber round) {
  round_ = round;
  counted_.clear();
  sum_.clear();
  weight_ = {};
  scalars_.assign(format_.reported_scalars(strategy_->num_scalars()), {});
  kept_.clear();
  std::ranges::fill(packed_sum_, 0);
  unmasked_ = false;
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::check_report(ClientId client,
                                                                      const Report& report) const {
  if (counted_.contains(client)) {
    return Rejection{RejectReason::kDuplicate,
                     "an update of this device is counted in this round already"};
  }
  if (!std::isfinite(report.weight)) {
    return Rejection{RejectReason::kNotFinite, "the report's weight is not finite"};
  }
  if (report.weight < 0) {
    return Rejection{RejectReason::kMalformed,
                     fmt::format("the report's weight is {:.6g}, below 0", report.weight)};
  }
  if (const std::size_t expected = format_.reported_scalars(strategy_->num_scalars());
      report.scalars.size() != expected) {
    return Rejection{RejectReason::kMalformed,
                     fmt::format("the report carries {} scalars, {} are summed",
                                 report.scalars.size(), expected)};
  }
  if (!format_.sum && format_.privacy.enabled()) {
    const auto half = [](double scalar) { return std::fabs(scalar) == 0.5; };
    if (report.weight != 1 || !std::ranges::all_of(report.scalars, half)) {
      return Rejection{RejectReason::kMalformed,
                       "under differential privacy every device weighs the same"};
    }
  }
  if (!std::ranges::all_of(report.scalars, [](double scalar) { return std::isfinite(scalar); })) {
    return Rejection{RejectReason::kNotFinite, "a scalar of the report is not finite"};
  }
  return std::nullopt;
}

/// The caller compared the sizes.
Result<std::span<const float>> UpdatePipeline::view(const SharedBytes& bytes) {
  if (format_.update == Encoding::kFp32 && aligned_for_float(bytes)) return as_floats(bytes);
  if (decoded_.size() != format_.layout.size()) decoded_ = ParameterVector(format_.layout.size());
  COVEY_TRY(decode(format_.update, format_.layout, bytes.span(), decoded_.span()));
  return std::span<const float>(decoded_.span());
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::check_bytes(
    const Report& report, const SharedBytes& bytes) const {
  const std::size_t expected = format_.update_size();
  if (bytes.size() != expected || report.blob_size != expected) {
    return Rejection{
        RejectReason::kWrongSize,
        fmt::format("the update has {} bytes (announced: {}), as {} an update of this model has {}",
                    bytes.size(), report.blob_size,
                    format_.sum ? "a masked sum" : to_string(format_.update), expected)};
  }
  if (const Digest digest = sha256(bytes.span()); digest != report.blob) {
    return Rejection{RejectReason::kMalformed,
                     fmt::format("the update's SHA-256 is {}, announced was {}", digest.hex(),
                                 report.blob.hex())};
  }
  return std::nullopt;
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::judge(ClientId client,
                                                               const Report& report,
                                                               const SharedBytes& bytes) {
  if (auto rejection = check_report(client, report)) return rejection;
  if (auto rejection = check_bytes(report, bytes)) return rejection;
  if (!format_.sum) {
    if (auto rejection = judge_plain(client, report, bytes)) return rejection;
  } else if (counted_.size() == format_.sum->plan.max_devices) {
    return Rejection{RejectReason::kServerFailed,
                     fmt::format("the round's sum is full: it holds {} updates", counted_.size())};
  } else {
    privacy::add_packed(format_.sum->packed, bytes.span(), packed_sum_);
  }
  counted_.insert(client);
  return std::nullopt;
}

/// Devices clip; under differential privacy a device that does not would be noticed by the noise.
double UpdatePipeline::norm_limit() const {
  constexpr double kRounding = 1 + 1e-5;  // of single precision, over any number of coordinates
  const bool central = format_.privacy.enabled() && format_.privacy.noise == DeviceNoise::kNone;
  if (!central) return format_.max_update_norm;
  const double clip = kRounding * privacy_.release->device_plan().clip_norm;
  return format_.max_update_norm > 0 ? std::min(clip, format_.max_update_norm) : clip;
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::judge_plain(ClientId client,
                                                                     const Report& report,
                                                                     const SharedBytes& bytes) {
  const auto decoded = view(bytes);
  if (!decoded.ok()) {
    return Rejection{RejectReason::kMalformed,
                     "the update does not decode: " + decoded.error().message};
  }
  const std::span<const float> update = *decoded;
  const double norm = std::sqrt(sum_of_squares(update));
  if (!std::isfinite(norm)) {
    return Rejection{RejectReason::kNotFinite, "the update has a value that is not finite"};
  }
  if (const double limit = norm_limit(); limit > 0 && norm > limit) {
    return Rejection{
        RejectReason::kOverNorm,
        fmt::format("the update's l2 norm is {:.6g}, the limit is {:.6g}", norm, limit)};
  }
  if (sum_strategy_ != nullptr) return add_to_sums(report, update);
  const bool as_it_lies = update.data() != decoded_.data();
  SharedBytes kept = as_it_lies ? bytes : encode_fp32(update);
  kept_.emplace(client, Kept{std::move(kept), report.weight});
  return std::nullopt;
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::add_to_sums(
    const Report& report, std::span<const float> update) {
  const auto too_large = [](std::string_view what, const Error& error) {
    return Rejection{RejectReason::kOverNorm,
                     fmt::format("{} cannot enter the sum: {}", what, error.message)};
  };
  if (sum_.terms() == strategies::ExactSum::kMaxTerms) {
    return Rejection{RejectReason::kServerFailed,
                     fmt::format("the round's sum is full: it holds {} updates", sum_.terms())};
  }
  // The numbers are added to copies; the vector goes last, because its sum refuses before it
  // changes.
  strategies::ExactScalarSum weight = weight_;
  if (auto added = weight.add(report.weight); !added.ok()) {
    return too_large("the report's weight", added.error());
  }
  std::vector<strategies::ExactScalarSum> scalars = scalars_;
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    if (auto added = scalars[i].add(report.scalars[i]); !added.ok()) {
      return too_large("a scalar of the report", added.error());
    }
  }
  if (auto added = sum_.add(update, report.weight); !added.ok()) {
    return too_large("the update", added.error());
  }
  weight_ = weight;
  scalars_ = std::move(scalars);
  return std::nullopt;
}

Result<EncodedModel> UpdatePipeline::apply() {
  if (counted_.empty() && !privacy_.release)
    return failed("no update was accepted in this round: the model stays as it is");
  const auto refused = [this](Error error) {
    return with_context(
        fmt::format("the strategy '{}' could not apply {} updates, the model stays as it is",
                    strategy_->name(), counted_.size()),
        std::move(error));
  };
  ParameterVector moved = model_.clone();
  std::vector<float> state = state_;
  if (auto ran = run_strategy({moved.span(), state}); !ran.ok()) return refused(ran.error());
  if (!all_finite(moved.span()) || !all_finite(state)) {
    return refused(
        failed("the new model or state would have a value that is not finite (is the "
               "learning rate too large?)"));
  }
  model_ = std::move(moved);
  state_ = std::move(state);
  begin();
  return encoded_model();
}

EncodedModel UpdatePipeline::encoded_model() const {
  EncodedModel encoded;
  encoded.parameters = encode_fp32(model_.span());
  encoded.sent = format_.model == Encoding::kFp32
                     ? encoded.parameters
                     : encode(format_.model, format_.layout, model_.span());
  // Hashed here, on the worker, once for everyone who shares the bytes.
  static_cast<void>(encoded.parameters.digest());
  static_cast<void>(encoded.sent.digest());
  return encoded;
}

}  // namespace covey::server
