#include "model_download.hpp"

#include <covey/compression/model_delta.hpp>
#include <covey/compression/model_steps.hpp>
#include <covey/models/engine.hpp>

namespace covey::client {
namespace {

Result<SharedBytes> apply(const TrainingPlan& plan, const ModelDelta& delta,
                          const SharedBytes& base, const SharedBytes& bytes) {
  if (!compression::is_model_steps(delta.encoding)) {
    return compression::apply_model_delta(delta.encoding, base.span(), bytes.span());
  }
  if (!plan.model.torchscript.empty()) {
    return malformed("a TorchScript file's layers are not known, which steps are decoded by");
  }
  if (compression::count_model_steps(bytes.span()) * base.size() > kMostDifferenceWork) {
    return malformed("the steps to the model take longer than a device may be busy");
  }
  COVEY_ASSIGN(const models::Network network, models::make_network(plan.model, plan.precision));
  return compression::apply_model_steps(delta.encoding, network.layout(), plan.seed, base.span(),
                                        bytes.span());
}

}  // namespace

Result<SharedBytes> apply_difference(const Assignment& assignment, const ModelDelta& delta,
                                     const SharedBytes& base, const SharedBytes& bytes) {
  if (base.size() != assignment.model_size) {
    return malformed("the model at hand has another length than the assignment's");
  }
  COVEY_ASSIGN(auto model, apply(assignment.plan, delta, base, bytes));
  if (model.digest() != assignment.model) {
    return malformed("the difference makes another model than " + assignment.model.hex());
  }
  return model;
}

}  // namespace covey::client
