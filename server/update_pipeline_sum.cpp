#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/server/update_pipeline.hpp>
#include <exception>
#include <limits>
#include <utility>

// From a round's sum, masked or not, to what the strategy sees: unmasked, decoded, and made
// private.
namespace covey::server {
namespace {

/// Stochastic rounding of a value with fraction f adds f (1 - f) quantum^2 of variance: 1/6 on
/// average.
double rounding_error(const privacy::SumFormat& format, std::uint32_t count,
                      std::span<const double> sum) {
  const double quantum = format.quantum * format.plan.max_weight;
  const double added =
      quantum * std::sqrt(static_cast<double>(count) * static_cast<double>(sum.size()) / 6);
  double squared = 0;
  for (const double value : sum) squared += value * value;
  if (squared > 0) return added / std::sqrt(squared);
  return std::numeric_limits<double>::infinity();  // every update rounded to nothing, or was
                                                   // nothing
}

}  // namespace

Result<privacy::UnmaskJob::Figures> UpdatePipeline::unmask(const privacy::UnmaskJob& job,
                                                           std::optional<ClientId>* culprit) {
  COVEY_ASSERT(format_.sum.has_value() && !unmasked_);
  COVEY_ASSIGN(auto figures, job.run(format_.sum->packed, packed_sum_, privacy_.threads, culprit));
  unmasked_ = true;
  return figures;
}

/// The round's sum in the open: of plain updates, or decoded from the unmasked one.
Result<strategies::Sum> UpdatePipeline::open_sum(std::vector<double>& vector) {
  strategies::Sum sum;
  sum.count = static_cast<std::uint32_t>(counted_.size());
  figures_.reset();
  squared_norm_ = 0;
  unclipped_ = 0;
  if (!format_.sum) {
    vector.resize(format_.layout.size());
    sum_.read(vector);
    sum.weight = weight_.read();
    for (const auto& scalar : scalars_) sum.scalars.push_back(scalar.read());
    if (!variant_weights_.empty()) {
      std::vector<double> weights;
      for (const auto& weight : variant_weights_) weights.push_back(weight.read());
      format_.variants->average_by_coordinate(weights, vector);
    }
    if (format_.privacy.enabled() && !sum.scalars.empty()) {
      unclipped_ = sum.scalars[0];
      sum.scalars.clear();
    }
    sum.vector = vector;
    return sum;
  }
  COVEY_ASSERT(unmasked_ || counted_.empty());
  COVEY_ASSIGN(auto decoded,
               privacy::decode_sum(*format_.sum, packed_sum_, sum.count, format_.seed, round_));
  vector = std::move(decoded.vector);
  sum.vector = vector;
  auto figures = privacy::SumFigures::from_scalars(format_.privacy, decoded.scalars);
  unclipped_ = figures.unclipped;
  squared_norm_ = figures.squared_norm > 0 ? figures.quartic_norm / figures.squared_norm : 0;
  sum.weight = figures.weight;
  sum.scalars = std::move(figures.scalars);
  if (!format_.privacy.enabled()) {
    const auto whole = [](double number) {
      return static_cast<std::uint64_t>(std::clamp(number, 0.0, 0x1p53));
    };
    figures_ = SecureSumFigures{whole(figures.num_examples),
                                whole(figures.steps),
                                figures.num_examples > 0 ? figures.loss / figures.num_examples : 0,
                                whole(figures.clipped_coordinates),
                                static_cast<std::uint32_t>(whole(figures.clipped_weights)),
                                rounding_error(*format_.sum, sum.count, vector),
                                format_.sum->plan.clip};
  }
  return sum;
}

Result<void> UpdatePipeline::run_sum_strategy(strategies::ServerModel model) {
  std::vector<double> vector;
  auto opened = open_sum(vector);
  if (!opened.ok() && privacy_.release && format_.privacy.noise != DeviceNoise::kNone) {
    // The server has seen the noised sum, whatever it was good for: it counts.
    vector.assign(format_.layout.size(), 0);
    COVEY_TRY(privacy_.release->release(vector, 0, *privacy_.secrets));
  }
  if (!opened.ok()) return opened.error();
  strategies::Sum sum = std::move(opened).value();
  if (privacy_.release) {
    COVEY_TRY(privacy_.release->release(vector, unclipped_, *privacy_.secrets));
    sum.weight = privacy_.release->denominator();
  }
  return sum_strategy_->apply(sum, model);
}

Result<void> UpdatePipeline::run_strategy(strategies::ServerModel model) {
  // A strategy may come from a plug-in; what it throws must not take the server down.
  try {
    if (individual_strategy_ == nullptr) return run_sum_strategy(model);
    std::vector<strategies::IndividualUpdate> updates;
    updates.reserve(kept_.size());
    for (const auto& [client, kept] : kept_) {
      updates.push_back({client,
                         std::span(reinterpret_cast<const float*>(kept.bytes.data()),
                                   kept.bytes.size() / sizeof(float)),
                         kept.weight});
    }
    return individual_strategy_->aggregate(updates, model);
  } catch (const std::exception& exception) {
    return failed(exception.what());
  }
}

/// After the sum at hand, so that the lattice of the next fits its updates. What devices say of
/// their norms may be wrong, so the range does not grow to more than twice itself.
Result<void> UpdatePipeline::adapt_clip() {
  if (!format_.adaptive_clip || !format_.sum || counted_.empty() || !(squared_norm_ > 0)) return {};
  SecureAggregationPlan plan = format_.sum->plan;
  // sum |v|^4 / sum |v|^2: of devices alike their squared norm, of unlike ones near the largest's,
  // whose coordinates are most of the sum.
  const double root_mean_square =
      std::sqrt(squared_norm_ / static_cast<double>(format_.layout.size()));
  // Of normally distributed values in b bits (rotation makes them so), what is lost by rounding and
  // by clipping together is least near 0.6 b standard deviations: about 1.2 for 3 levels and 2.5
  // for 15 (Max 1960, table II). Without error feedback nobody makes up for what is clipped, so
  // less of it is.
  const double deviations = (format_.sum->least_error ? 0.6 : 1.0) * plan.bits;
  const double clip = std::min(deviations * root_mean_square, 2 * plan.clip);
  constexpr double kSmallest = 1e-30;  // far above where single precision ends
  plan.clip = static_cast<double>(static_cast<float>(std::max(clip, kSmallest)));
  const bool least_error = format_.sum->least_error;
  COVEY_ASSIGN(format_.sum, privacy::SumFormat::make(plan, format_.privacy, format_.layout.size(),
                                                     format_.sum->num_scalars));
  format_.sum->least_error = least_error;
  if (figures_) figures_->clip = plan.clip;
  return {};
}

std::optional<double> UpdatePipeline::sum_clip() const {
  if (!format_.sum || !format_.adaptive_clip) return std::nullopt;
  return format_.sum->plan.clip;
}

std::vector<float> UpdatePipeline::state() const {
  std::vector<float> all = state_;
  if (privacy_.release) {
    const std::vector<float> privacy = privacy_.release->state();
    all.insert(all.end(), privacy.begin(), privacy.end());
  }
  if (const auto clip = sum_clip()) all.push_back(static_cast<float>(*clip));
  const auto sent = sender_.state();
  all.insert(all.end(), sent.begin(), sent.end());
  return all;
}

std::optional<PrivacyStatus> UpdatePipeline::privacy_status() const {
  if (!privacy_.release) return std::nullopt;
  const privacy::PrivateRelease& release = *privacy_.release;
  return PrivacyStatus{release.device_plan(), release.spent(), release.noise_multiplier(),
                       release.budget_allows_another(), release.guarantee()};
}

StrategyApplied apply_strategy(UpdatePipeline& pipeline, const ApplyStrategy& action,
                               const std::function<void()>& unmasked) {
  std::optional<ClientId> culprit;
  if (action.unmask) {
    if (const auto done = pipeline.unmask(*action.unmask, &culprit); !done.ok()) {
      return {action.round, done.error(), pipeline.privacy_status(), std::nullopt, culprit};
    }
    if (unmasked) unmasked();
  }
  auto model = pipeline.apply();
  return {action.round, std::move(model), pipeline.privacy_status(), pipeline.sum_figures(),
          std::nullopt};
}

}  // namespace covey::server
