#include "plan_encodings.hpp"

namespace covey::client {

Result<PlanEncodings> encodings_of(const TrainingPlan& plan) {
  PlanEncodings encodings;
  COVEY_ASSIGN(encodings.model, model_encoding(plan.precision));
  const auto update = encoding_named(plan.compressor);
  if (!update) {
    return failed("the plan asks to encode the update with \"" + plan.compressor +
                  "\"; there are fp32, bf16 and int8");
  }
  encodings.update = *update;
  return encodings;
}

}  // namespace covey::client
