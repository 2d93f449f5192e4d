#pragma once

#include <covey/compressor_spec.hpp>
#include <covey/encoding.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>

namespace covey::client {

/// How a task's model comes and its update goes.
struct PlanEncodings {
  Encoding model = Encoding::kFp32;
  CompressorSpec update;
};
/// Error naming the precision or compressor of `plan` that this build does not have.
Result<PlanEncodings> encodings_of(const TrainingPlan& plan);

}  // namespace covey::client
