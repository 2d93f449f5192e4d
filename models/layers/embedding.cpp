#include "layers/embedding.hpp"

#include <fmt/format.h>

#include <cstring>

#include "planner.hpp"

namespace covey::models {

namespace {

/// Floats hold integers exactly up to here.
constexpr std::uint32_t kMaxVocabulary = std::uint32_t{1} << 24;

/// Offset of a token's row. Whoever loads data has checked the tokens; one out of range, or a NaN,
/// takes the nearest row (0 for a NaN) rather than read beyond the table.
std::size_t row_of(const EmbeddingStage& stage, float token) {
  const std::size_t last = stage.vocabulary - 1;
  if (!(token > 0)) return stage.table;
  const std::size_t row =
      token >= static_cast<float>(last) ? last : static_cast<std::size_t>(token);
  return stage.table + row * stage.units;
}

}  // namespace

Result<void> plan_embedding(Planner& planner) {
  const LayerSpec& layer = planner.layer();
  const auto& shape = planner.shape();
  if (!planner.is_first()) {
    return planner.refuse("must be the first layer: it takes the tokens of the data");
  }
  if (shape.size() != 1) {
    return planner.refuse("takes a sequence of tokens [steps] but receives " +
                          Planner::text(shape));
  }
  if (layer.units == 0) return planner.refuse("has no units");
  if (layer.vocabulary == 0 || layer.vocabulary > kMaxVocabulary) {
    return planner.refuse(
        fmt::format("has vocabulary {}; 1 to {} work", layer.vocabulary, kMaxVocabulary));
  }
  COVEY_TRY(planner.check_sizes(std::uint64_t{layer.vocabulary} * layer.units,
                                std::uint64_t{shape[0]} * layer.units));
  EmbeddingStage stage{.steps = shape[0], .units = layer.units, .vocabulary = layer.vocabulary};
  TensorInit init;
  init.kind = TensorInit::Kind::kNormal;
  stage.table = planner.add_tensor(planner.number("embedding") + ".weight",
                                   {layer.vocabulary, layer.units}, init);
  planner.take_tokens(layer.vocabulary);
  planner.add_stage(stage, {shape[0], layer.units});
  return {};
}

StageMemory memory_of(const EmbeddingStage&, std::size_t) { return {}; }

void forward(const EmbeddingStage& stage, const ForwardPass& pass) {
  for (std::size_t i = 0; i < pass.batch * stage.steps; ++i) {
    std::memcpy(pass.outputs + i * stage.units, pass.parameters + row_of(stage, pass.inputs[i]),
                stage.units * sizeof(float));
  }
}

/// A token may occur many times: what pulls on the whole table goes first, then each occurrence
/// adds its share.
void backward(const EmbeddingStage& stage, const BackwardPass& pass, const Descent& descent) {
  descent.pull(pass.kernels, stage.table, stage.vocabulary * stage.units);
  for (std::size_t i = 0; i < pass.batch * stage.steps; ++i) {
    pass.kernels.add_scaled(pass.gradient_outputs + i * stage.units, stage.units, descent.factor(),
                            descent.values + row_of(stage, pass.inputs[i]));
  }
}

}  // namespace covey::models
