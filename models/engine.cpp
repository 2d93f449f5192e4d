#include <covey/assert.hpp>
#include <covey/models/engine.hpp>
#include <limits>

#include "bf16/bf16_engine.hpp"
#include "int8_engine.hpp"
#include "qat/qat_engine.hpp"
#include "vector_engine.hpp"

namespace covey::models {

Result<Network> make_network(const ModelSpec& spec, std::string_view precision) {
  return precision == "qat-int8" ? Network::make_quantisation_aware(spec) : Network::make(spec);
}

Result<std::unique_ptr<Engine>> make_engine(const ModelSpec& spec, std::string_view precision) {
  COVEY_TRY(model_encoding(precision));  // names the precisions there are
  if (!spec.torchscript.empty()) {
    return failed("the plan's network is a TorchScript file, which needs libtorch");
  }
  if (precision == "fp32") {
    COVEY_ASSIGN(Network network, Network::make(spec));
    return std::unique_ptr<Engine>(std::make_unique<VectorEngine>(std::move(network)));
  }
  if (precision == "qat-int8") return QatEngine::make(spec);
  if (precision == "bf16") return Bf16Engine::make(spec);
  COVEY_ASSERT(precision == "int8");  // model_encoding() knows no other
  COVEY_ASSIGN(Int8Network network, Int8Network::make(spec));
  return std::unique_ptr<Engine>(std::make_unique<Int8Engine>(std::move(network)));
}

std::vector<std::string> supported_precisions() { return {"fp32", "bf16", "qat-int8", "int8"}; }

std::size_t label_limit(const ModelSpec& spec, const DataShape& shape) {
  constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();
  if (spec.target == Target::kInput) return kAny;
  if (spec.loss == Loss::kCrossEntropy || shape.classes > 1) return shape.classes;
  return spec.loss == Loss::kBinaryCrossEntropy ? 2 : kAny;
}

}  // namespace covey::models
