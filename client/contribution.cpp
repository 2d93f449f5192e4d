#include "contribution.hpp"

#include <algorithm>
#include <cmath>
#include <covey/encoding.hpp>
#include <covey/privacy/clipping.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/samplers.hpp>
#include <covey/privacy/sum_figures.hpp>

#include "plan_encodings.hpp"
#include "update_encoder.hpp"

namespace covey::client {
namespace {

/// Local differential privacy: the device trusts nobody with the update itself.
Result<void> add_local_noise(const PrivacyPlan& plan, std::span<float> update,
                             privacy::SecretSource& secrets) {
  if (plan.noise != DeviceNoise::kGaussian) return {};
  // A plan is a message: what it asks for need not make sense.
  if (!(plan.noise_stddev > 0) || !std::isfinite(plan.noise_stddev)) {
    return failed("the plan asks for noise and gives no standard deviation of it");
  }
  // Values are rounded to the noise's lattice first, of steps below stddev * 2^-20, which may move
  // two updates apart by a step a coordinate: S + sqrt(d) stddev 2^-20. The noise grows to cover
  // that.
  const double slack =
      plan.noise_stddev / plan.clip_norm * 0x1p-20 * std::sqrt(static_cast<double>(update.size()));
  if (!(slack < 0.5)) return failed("the plan's noise is too large for single precision");
  const double stddev = plan.noise_stddev / (1 - slack);
  privacy::NoiseSampler sampler(secrets);
  for (float& value : update) {
    value = static_cast<float>(sampler.add_gaussian(static_cast<double>(value), stddev));
  }
  return sampler.status();
}

/// |v|^2 of v = min(weight, W) / W * update: sums of it and its square tell how large coordinates
/// are.
double entering_squared_norm(const SecureAggregationPlan& plan, const Contribution& contribution) {
  const double factor = std::min(contribution.weights.weight, plan.max_weight) / plan.max_weight;
  double squared = 0;
  for (const float value : contribution.update) squared += static_cast<double>(value) * value;
  // Its square is below what a secure sum's scalars take, and far above where training has
  // diverged.
  return std::min(factor * factor * squared, 0x1p19);
}

/// update - what the sum says of it, as fp32.
Result<SharedBytes> lost_in_sum(const privacy::SumFormat& format, const Contribution& contribution,
                                std::span<const std::byte> packed,
                                const privacy::ContributionDraw& draw) {
  ParameterVector lost(contribution.update.size());
  std::ranges::copy(contribution.update, lost.data());
  const double weight = std::min(contribution.weights.weight, format.plan.max_weight);
  if (weight > 0) {  // a sum says min(weight, W) times the update
    COVEY_ASSIGN(const auto said, privacy::decode_contribution(format, packed, draw));
    for (std::size_t i = 0; i < said.size(); ++i) {
      lost[i] = static_cast<float>(static_cast<double>(lost[i]) - said[i] / weight);
    }
  }
  return encode_fp32(std::move(lost));
}

Result<TrainedUpdate> encode_for_sum(const TrainingTask& task, const Contribution& contribution,
                                     double unclipped, bool error_feedback,
                                     privacy::SecretSource& secrets) {
  const TrainingPlan& plan = task.plan;
  privacy::SumFigures figures;
  figures.weight = std::min(contribution.weights.weight, plan.secure_aggregation.max_weight);
  figures.clipped_weights =
      contribution.weights.weight > plan.secure_aggregation.max_weight ? 1 : 0;
  figures.num_examples = static_cast<double>(contribution.num_examples);
  figures.steps = contribution.steps;
  figures.loss = contribution.train_loss * static_cast<double>(contribution.num_examples);
  figures.scalars = contribution.weights.scalars;
  figures.unclipped = unclipped;
  figures.squared_norm = entering_squared_norm(plan.secure_aggregation, contribution);
  figures.quartic_norm = figures.squared_norm * figures.squared_norm;
  std::vector<double> scalars = figures.to_scalars(plan.privacy);
  COVEY_ASSIGN(auto format, privacy::SumFormat::make(plan.secure_aggregation, plan.privacy,
                                                     contribution.update.size(), scalars.size()));
  format.least_error = error_feedback;
  const privacy::ContributionDraw draw{plan.seed, task.round, task.client};
  const auto encode = [&] {
    return privacy::encode_contribution(format, contribution.update, contribution.weights.weight,
                                        scalars, draw, secrets);
  };
  COVEY_ASSIGN(auto encoded, encode());
  if (encoded.clipped > 0 && !plan.privacy.enabled()) {  // known only now, and rare
    figures.clipped_coordinates = static_cast<double>(encoded.clipped);
    scalars = figures.to_scalars(plan.privacy);
    COVEY_ASSIGN(encoded, encode());
  }
  TrainedUpdate trained;
  if (error_feedback) {
    COVEY_ASSIGN(trained.residual, lost_in_sum(format, contribution, encoded.packed, draw));
  }
  trained.update = SharedBytes(std::move(encoded.packed));
  trained.packed = format.packed;
  trained.clipped_coordinates = encoded.clipped;
  trained.num_examples = contribution.num_examples;
  trained.steps = contribution.steps;
  trained.train_loss = contribution.train_loss;
  return trained;
}

}  // namespace

bool needs_privacy(const TrainingPlan& plan) {
  return plan.secure_aggregation.enabled() || plan.privacy.enabled();
}

Result<TrainedUpdate> make_private(const TrainingTask& task, const ModelLayout& layout,
                                   Contribution contribution, privacy::SecretSource& secrets) {
  const TrainingPlan& plan = task.plan;
  double unclipped = 0;
  if (plan.privacy.enabled()) {
    COVEY_ASSIGN(const privacy::Clipped clipped,
                 privacy::clip_update(plan.privacy, layout, contribution.update));
    unclipped = clipped.clipped ? -0.5 : 0.5;
    COVEY_TRY(add_local_noise(plan.privacy, contribution.update, secrets));
    contribution.weights = {.weight = 1, .scalars = {}};
  }
  if (plan.secure_aggregation.enabled()) {
    COVEY_ASSIGN(const PlanEncodings encodings, encodings_of(plan));
    const bool error_feedback = encodings.update.error_feedback;
    if (error_feedback) add_residual(task.residual, contribution.update);
    return encode_for_sum(task, contribution, unclipped, error_feedback, secrets);
  }
  TrainedUpdate trained;
  trained.update = encode_fp32(contribution.update);
  trained.digest = sha256(trained.update.span());
  trained.weight = 1;
  trained.num_examples = contribution.num_examples;
  trained.steps = contribution.steps;
  trained.train_loss = contribution.train_loss;
  if (plan.privacy.clip == ClipKind::kAdaptive) trained.scalars = {unclipped};
  return trained;
}

}  // namespace covey::client
