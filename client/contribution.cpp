#include "contribution.hpp"

#include <algorithm>
#include <cmath>
#include <covey/encoding.hpp>
#include <covey/privacy/clipping.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/samplers.hpp>
#include <covey/privacy/sum_figures.hpp>

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
  // Values are rounded to the noise's lattice first, of steps below stddev * 2^-20, which may move two
  // updates apart by a step a coordinate: S + sqrt(d) stddev 2^-20. The noise grows to cover that.
  const double slack = plan.noise_stddev / plan.clip_norm * 0x1p-20 *
                       std::sqrt(static_cast<double>(update.size()));
  if (!(slack < 0.5)) return failed("the plan's noise is too large for single precision");
  const double stddev = plan.noise_stddev / (1 - slack);
  privacy::NoiseSampler sampler(secrets);
  for (float& value : update) {
    value = static_cast<float>(
        sampler.add_gaussian(static_cast<double>(value), stddev));
  }
  return sampler.status();
}

Result<TrainedUpdate> encode_for_sum(const TrainingTask& task, const Contribution& contribution,
                                     double unclipped, privacy::SecretSource& secrets) {
  const TrainingPlan& plan = task.plan;
  privacy::SumFigures figures;
  figures.weight = std::min(contribution.weights.weight, plan.secure_aggregation.max_weight);
  figures.clipped_weights = contribution.weights.weight > plan.secure_aggregation.max_weight ? 1 : 0;
  figures.num_examples = static_cast<double>(contribution.num_examples);
  figures.steps = contribution.steps;
  figures.loss = contribution.train_loss * static_cast<double>(contribution.num_examples);
  figures.scalars = contribution.weights.scalars;
  figures.unclipped = unclipped;
  std::vector<double> scalars = figures.to_scalars(plan.privacy);
  COVEY_ASSIGN(const auto format,
               privacy::SumFormat::make(plan.secure_aggregation, plan.privacy,
                                        contribution.update.size(), scalars.size()));
  const auto encode = [&] {
    return privacy::encode_contribution(format, contribution.update, contribution.weights.weight,
                                        scalars, {plan.seed, task.round, task.client}, secrets);
  };
  COVEY_ASSIGN(auto encoded, encode());
  if (encoded.clipped > 0 && !plan.privacy.enabled()) {  // known only now, and rare
    figures.clipped_coordinates = static_cast<double>(encoded.clipped);
    scalars = figures.to_scalars(plan.privacy);
    COVEY_ASSIGN(encoded, encode());
  }
  TrainedUpdate trained;
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
    return encode_for_sum(task, contribution, unclipped, secrets);
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
