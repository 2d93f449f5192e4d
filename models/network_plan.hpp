#pragma once

#include <covey/models/network.hpp>
#include <cstddef>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "kernels/kernels.hpp"
#include "layers/activation.hpp"
#include "layers/add.hpp"
#include "layers/convolution.hpp"
#include "layers/dense.hpp"
#include "layers/depthwise.hpp"
#include "layers/dropout.hpp"
#include "layers/embedding.hpp"
#include "layers/gru.hpp"
#include "layers/lstm.hpp"
#include "layers/norm.hpp"
#include "layers/pool.hpp"
#include "qat/range.hpp"

namespace covey::models {

/// What the engine runs: the spec's layers with relu fused and flatten gone. For each alternative X
/// there are, in its file:
///   void forward(const X&, const ForwardPass&);
///   void backward(const X&, const BackwardPass&, const Descent&);
///   StageMemory memory_of(const X&, std::size_t batch);
using Stage =
    std::variant<DenseStage, ConvolutionStage, DepthwiseStage, PoolStage, GlobalPoolStage,
                 ActivationStage, EmbeddingStage, LstmStage, GruStage, BatchNormStage,
                 GroupNormStage, DropoutStage, AddStage, RangeStage>;

struct PlannedStage {
  Stage kind;
  std::size_t layer = 0;      ///< index in the spec of the layer it carries out
  std::size_t inputs = 0;     ///< floats of one example
  std::size_t outputs = 0;    ///< floats of one example
  std::size_t parameters = 0;
  std::vector<std::uint32_t> output_shape;
  double multiply_adds = 0;   ///< of one example's forward pass
  /// An add stage's second input: stage index + 1, 0 for the network's input.
  std::optional<std::size_t> skip;
};

/// How a tensor starts, and whether it is trained.
struct TensorInit {
  enum class Kind : std::uint8_t {
    kWeight,  ///< as ModelSpec::initialisation says
    kBias,    ///< as ModelSpec::initialisation says
    kNormal,  ///< N(0, 1): embeddings
    kOnes,
    kZeros,
  };
  Kind kind = Kind::kWeight;
  std::size_t fan_in = 1;
  std::size_t fan_out = 1;
  bool trained = true;  ///< false: running statistics, which no optimiser touches

  void draw(Initialisation scheme, RandomStream& random, std::span<float> values) const;
};

/// A network ready to run. Immutable once made.
struct NetworkPlan {
  ModelSpec spec;
  ModelLayout layout;
  std::size_t inputs = 0;       ///< floats of one example
  std::size_t outputs = 0;      ///< floats of one example
  std::size_t classes = 0;      ///< outputs of one prediction
  std::size_t predictions = 1;  ///< of one example: 1, or the steps of a sequence
  std::uint32_t vocabulary = 0;  ///< inputs are tokens below this; 0: they are numbers
  std::vector<PlannedStage> stages;
  std::vector<TensorInit> init;   ///< of each tensor in the layout
  std::size_t first_trained = 0;  ///< first stage with parameters: no gradient goes below it
  double training_flops = 0;
  const Kernels* kernels = nullptr;

  static Result<NetworkPlan> make(const ModelSpec& spec);

  /// Whether training looks at statistics over the batch, so that it cannot go through in pieces.
  bool needs_whole_batch() const;
  /// Last add stage whose second input are the outputs of stage s; s itself where there is none.
  std::size_t last_residual(std::size_t s) const;

  /// f(offset, size) for the parts of the parameter vector that are trained, in order.
  template <typename F>
  void for_each_trained(F f) const {
    for (std::size_t t = 0; t < layout.tensors().size(); ++t) {
      if (init[t].trained) f(layout.tensors()[t].offset, layout.tensors()[t].size());
    }
  }
};

struct Network::Plan : NetworkPlan {};

/// Floats a stage needs for `batch` examples.
StageMemory memory_of(const Stage& stage, std::size_t batch);

}  // namespace covey::models
