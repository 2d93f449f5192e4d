#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <covey/server/update_pipeline.hpp>
#include <covey/strategies/staleness.hpp>
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

/// As it was when the state was stored.
Result<void> restore_clip(privacy::SumFormat& sum, float clip) {
  SecureAggregationPlan plan = sum.plan;
  plan.clip = static_cast<double>(clip);
  const bool least_error = sum.least_error;
  COVEY_ASSIGN(sum, privacy::SumFormat::make(plan, sum.privacy, sum.dimension, sum.num_scalars));
  sum.least_error = least_error;
  return {};
}

}  // namespace

Result<UpdatePipeline::Format> UpdatePipeline::Format::of(
    const TrainingPlan& plan, ModelLayout layout, std::size_t num_scalars,
    const std::vector<std::string>& compressors) {
  Format format;
  format.layout = std::move(layout);
  COVEY_ASSIGN(format.model, model_encoding(plan.precision));
  format.max_update_norm = plan.max_update_norm;
  format.seed = plan.seed;
  format.privacy = plan.privacy;
  if (plan.secure_aggregation.enabled()) {
    COVEY_ASSIGN(format.sum, privacy::SumFormat::make(
                                 plan.secure_aggregation, plan.privacy, format.layout.size(),
                                 privacy::num_sum_scalars(plan.privacy, num_scalars)));
    COVEY_ASSIGN(const CompressorSpec spec, parse_compressor(plan.compressor));
    format.sum->least_error = spec.error_feedback;
    format.compressors = {OfferedCompressor::of_size(plan.compressor, format.sum->bytes())};
    return format;
  }
  const std::vector<std::string> names =
      compressors.empty() ? std::vector<std::string>{plan.compressor} : compressors;
  COVEY_ASSIGN(format.compressors, offer_compressors(names, format.layout));
  return format;
}

const OfferedCompressor& UpdatePipeline::Format::compressor(std::uint32_t variant,
                                                            std::uint32_t number) const {
  return (variant == 0 ? compressors : (*variants)[variant].compressors)[number];
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
  COVEY_ASSIGN(auto sender, ModelSender::make(format.sending, format.layout, format.seed));
  const bool adaptive_clip = format.sum && format.adaptive_clip;
  const std::size_t state_size = strategy_state +
                                 (privacy.release ? privacy.release->state_size() : 0) +
                                 (adaptive_clip ? 1 : 0) + sender.state_size();
  if (!state.empty() && state.size() != state_size) {
    return invalid_argument(fmt::format(
        "the strategy '{}' keeps {} floats of state for this model, but {} were given: they "
        "belong to another strategy or model",
        strategy->name(), state_size, state.size()));
  }

  const std::size_t sent = state.empty() ? 0 : sender.state_size();
  sender.begin(model.span(), std::span(state).last(sent));
  state.resize(state.size() - sent);
  if (adaptive_clip && !state.empty()) {
    COVEY_TRY(restore_clip(*format.sum, state.back()));
    state.pop_back();
  }
  if (privacy.release && !state.empty()) {
    COVEY_TRY(privacy.release->restore(std::span(state).subspan(strategy_state)));
  }
  state.resize(strategy_state);

  if (format.compressors.empty()) {
    COVEY_ASSIGN(format.compressors, offer_compressors({"fp32"}, format.layout));
  }
  UpdatePipeline pipeline;
  pipeline.sum_strategy_ = dynamic_cast<strategies::SumStrategy*>(strategy.get());
  pipeline.individual_strategy_ = dynamic_cast<strategies::IndividualStrategy*>(strategy.get());
  if (pipeline.sum_strategy_ == nullptr && pipeline.individual_strategy_ == nullptr) {
    return invalid_argument(
        fmt::format("the strategy '{}' derives from neither SumStrategy nor IndividualStrategy",
                    strategy->name()));
  }
  COVEY_ASSERT(format.variants == nullptr || (!format.sum && !format.privacy.enabled()) ||
               !format.variants->has_parts());
  if (format.sum && pipeline.sum_strategy_ == nullptr) {
    return invalid_argument(fmt::format(
        "strategy {} must see each update, and secure aggregation shows only their sum; "
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
  pipeline.sender_ = std::move(sender);
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
  const bool has_parts = format_.variants != nullptr && format_.variants->has_parts();
  variant_weights_.assign(has_parts ? format_.variants->size() : 0, {});
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

/// The update as a vector of the whole model. The caller compared the sizes.
Result<std::span<const float>> UpdatePipeline::view(const JudgeUpdate& action,
                                                    const SharedBytes& bytes) {
  const PlanVariant* variant = action.variant == 0 ? nullptr : &(*format_.variants)[action.variant];
  const bool whole = variant == nullptr || variant->whole();
  const auto plain = plain_encoding(format_.compressor(action.variant, action.compressor).spec);
  if (whole && plain == Encoding::kFp32 && aligned_for_float(bytes)) return as_floats(bytes);
  if (decoded_.size() != format_.layout.size()) decoded_ = ParameterVector(format_.layout.size());
  if (whole) {
    COVEY_TRY(decode_into(action, bytes, format_.layout, decoded_.span()));
    return std::span<const float>(decoded_.span());
  }
  const std::size_t size = variant->layout.size();
  if (part_.size() < size) part_ = ParameterVector(size);
  const std::span<float> part = part_.span().first(size);
  COVEY_TRY(decode_into(action, bytes, variant->layout, part));
  variant->scatter(part, decoded_.span());
  return std::span<const float>(decoded_.span());
}

Result<void> UpdatePipeline::decode_into(const JudgeUpdate& action, const SharedBytes& bytes,
                                         const ModelLayout& layout, std::span<float> out) {
  const CompressorSpec& spec = format_.compressor(action.variant, action.compressor).spec;
  if (const auto plain = plain_encoding(spec)) return decode(*plain, layout, bytes.span(), out);
  auto& decoder = decoders_[{action.variant, action.compressor}];
  if (decoder == nullptr) {
    COVEY_ASSIGN(decoder, compression::make_compressor(spec, layout));
  }
  return decoder->decode(bytes.span(), {format_.seed, action.key.round, action.key.client}, out);
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::check_bytes(
    const JudgeUpdate& action, const SharedBytes& bytes) const {
  const Report& report = action.report;
  const OfferedCompressor& offered = format_.compressor(action.variant, action.compressor);
  if (bytes.size() != report.blob_size || !offered.sizes.contains(report.blob_size)) {
    return Rejection{
        RejectReason::kWrongSize,
        fmt::format("the update has {} bytes (announced: {}), as {} an update of this model has {}",
                    bytes.size(), report.blob_size, format_.sum ? "a masked sum" : offered.name,
                    to_string(offered.sizes))};
  }
  if (const Digest digest = bytes.digest(); digest != report.blob) {
    return Rejection{RejectReason::kMalformed,
                     fmt::format("the update's SHA-256 is {}, announced was {}", digest.hex(),
                                 report.blob.hex())};
  }
  return std::nullopt;
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::judge(ClientId client,
                                                               const Report& report,
                                                               const SharedBytes& bytes) {
  JudgeUpdate action;
  action.key.client = client;
  action.key.round = round_;
  action.report = report;
  return judge(action, bytes);
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::judge(const JudgeUpdate& action,
                                                               const SharedBytes& bytes) {
  const ClientId client = action.key.client;
  if (auto rejection = check_report(client, action.report)) return rejection;
  if (auto rejection = check_bytes(action, bytes)) return rejection;
  if (!format_.sum) {
    if (auto rejection = judge_plain(action, bytes)) return rejection;
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

std::optional<UpdatePipeline::Rejection> UpdatePipeline::judge_plain(const JudgeUpdate& action,
                                                                     const SharedBytes& bytes) {
  const auto decoded = view(action, bytes);
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
  if (sum_strategy_ != nullptr) {
    const auto summand = from_model(update, action.base);
    if (!summand.ok()) {
      return Rejection{RejectReason::kServerFailed, summand.error().message};
    }
    return add_to_sums(action, *summand);
  }
  const bool as_it_lies = update.data() != decoded_.data();
  SharedBytes kept = as_it_lies ? bytes : encode_fp32(update);
  kept_.emplace(action.key.client, Kept{std::move(kept), action.report.weight});
  return std::nullopt;
}

/// What enters the sum for this update: itself, or, where the strategy needs its base, the way from
/// the model as it stands to where the device would have it.
Result<std::span<const float>> UpdatePipeline::from_model(std::span<const float> update,
                                                          const SharedBytes& base) {
  if (!sum_strategy_->needs_base()) return update;
  if (base.size() != update.size_bytes()) {
    return failed(fmt::format("the model that the update began with has {} bytes, not {}",
                              base.size(), update.size_bytes()));
  }
  if (shifted_.size() != update.size()) shifted_ = ParameterVector(update.size());
  const std::span<float> shifted = shifted_.span();
  COVEY_TRY(decode_fp32(base.span(), shifted));
  const std::span<const float> model = model_.span();
  for (std::size_t i = 0; i < shifted.size(); ++i) {  // in double: rounded once
    shifted[i] = static_cast<float>(static_cast<double>(shifted[i]) + update[i] - model[i]);
  }
  return std::span<const float>(shifted);
}

std::optional<UpdatePipeline::Rejection> UpdatePipeline::add_to_sums(
    const JudgeUpdate& action, std::span<const float> update) {
  const Report& report = action.report;
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
  std::vector<strategies::ExactScalarSum> variant_weights = variant_weights_;
  strategies::ExactScalarSum unused;
  if (auto added = weight.add(report.weight); !added.ok()) {
    return too_large("the report's weight", added.error());
  }
  auto& of_variant = variant_weights.empty() ? unused : variant_weights[action.variant];
  if (auto added = of_variant.add(report.weight); !added.ok()) {
    return too_large("the report's weight", added.error());
  }
  std::vector<strategies::ExactScalarSum> scalars = scalars_;
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    if (auto added = scalars[i].add(report.scalars[i]); !added.ok()) {
      return too_large("a scalar of the report", added.error());
    }
  }
  const double counts = strategies::staleness_weight(format_.asynchronous, action.staleness);
  if (auto added = sum_.add(update, report.weight * counts); !added.ok()) {
    return too_large("the update", added.error());
  }
  weight_ = weight;
  variant_weights_ = std::move(variant_weights);
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
  const auto encodings = sent_encodings();
  if (sender_.needs_current()) sender_.remember(encoded_model(), encodings);
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
  if (auto adapted = adapt_clip(); !adapted.ok()) return refused(adapted.error());
  sender_.advance(round_, model_.span());
  begin();
  EncodedModel encoded = encoded_model();
  sender_.offer(encoded, encodings);
  return encoded;
}

std::optional<double> UpdatePipeline::summed_weight() const {
  if (format_.sum) return std::nullopt;
  if (sum_strategy_ != nullptr) return weight_.read();
  double weight = 0;
  for (const auto& [client, kept] : kept_) weight += kept.weight;
  return weight;
}

}  // namespace covey::server
