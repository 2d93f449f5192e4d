#include "plan_encodings.hpp"

namespace covey::client {

Result<PlanEncodings> encodings_of(const TrainingPlan& plan) {
  PlanEncodings encodings;
  COVEY_ASSIGN(encodings.model, model_encoding(plan.precision));
  auto update = parse_compressor(plan.compressor);
  if (!update.ok()) return with_context("the plan", update.error());
  encodings.update = *update;
  if (encodings.update.error_feedback && plan.privacy.enabled()) {
    return failed(
        "the plan asks for \"" + plan.compressor +
        "\" with differential privacy, which is not counted with what error feedback adds "
        "to an update");
  }
  return encodings;
}

}  // namespace covey::client
