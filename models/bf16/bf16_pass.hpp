#pragma once

#include <covey/models/network.hpp>

#include "bf16/bf16_plan.hpp"
#include "bf16/kernels_bf16.hpp"
#include "losses.hpp"

namespace covey::models {

/// A batch, or the part of it that goes through the network together.
struct Bf16Batch {
  const float* inputs;
  const std::int32_t* labels;
  std::size_t size;
  std::size_t first = 0;  ///< of these examples within the whole batch
};

/// What becomes of the gradient.
struct Bf16Descent {
  float scale = 0;               ///< 1 / targets of the whole batch
  Bf16Step step;                 ///< anchor and rounding are of the whole vector
  float* gathered = nullptr;     ///< R^d: the gradient is added to it and no step is taken
  std::uint64_t random_key = 0;  ///< what dropout draws from
};

/// Runs the stages of a network on bf16 weights for the length of a call. A stage sees fp32: its
/// parameters (but for a dense stage's matrix) and, piece by piece, the batch's values are widened
/// on the way in and narrowed on the way out, so a layer needs no code of its own for bf16.
class Bf16Pass {
 public:
  struct Memory {
    const NetworkPlan& network;
    const Bf16Plan& plan;
    const Bf16Kernels& kernels;
    const Bf16Block& block;
    std::uint16_t* weights;  ///< R^d
  };
  explicit Bf16Pass(const Memory& memory)
      : network_(memory.network),
        plan_(memory.plan),
        kernels_(memory.kernels),
        block_(memory.block),
        weights_(memory.weights) {}

  LossResult evaluate(const Bf16Batch& batch) const;
  /// Returns the sum of the losses.
  double descend(const Bf16Batch& batch, const Bf16Descent& descent) const;

 private:
  /// Examples [first, first + size) of the batch, the index-th piece of a stage.
  struct Piece {
    std::size_t first, size, index;
  };
  template <typename F>
  static void for_each_piece(const Bf16Batch& batch, std::size_t size, F f);

  void forward(const Bf16Batch& batch, const Bf16Descent* training) const;
  void forward_dense(std::size_t s, const DenseStage& dense, const Bf16Batch& batch) const;
  void forward_stage(std::size_t s, const Bf16Batch& batch, const Bf16Descent* training) const;
  void forward_piece(std::size_t s, const Bf16Batch& batch, const Piece& piece,
                     const Bf16Descent* training) const;
  void keep_outputs(std::size_t s, const Piece& piece) const;
  void store_running(std::size_t s, const StochasticRounding& rounding) const;

  void backward(const Bf16Batch& batch, const Bf16Descent& descent) const;
  void backward_dense(std::size_t s, const DenseStage& dense, const Bf16Batch& batch,
                      const Bf16Descent& descent) const;
  void gather_dense(std::size_t s, const DenseStage& dense, const Bf16Batch& batch,
                    const Bf16Descent& descent) const;
  void backward_stage(std::size_t s, const Bf16Batch& batch, const Bf16Descent& descent) const;
  void backward_piece(std::size_t s, const Bf16Batch& batch, const Piece& piece,
                      const BackwardPass& common, const Descent& descent) const;
  void pass_to_residual(std::size_t s, std::size_t batch) const;
  void add_residual_gradient(std::size_t s, std::size_t batch) const;
  /// Steps parameters [offset, offset + n) by g.
  void step(std::size_t offset, std::size_t n, const float* g, const Bf16Step& step) const;

  /// What stage s receives of a piece, in fp32; widened into `working` where that takes a copy.
  const float* widened_input(std::size_t s, const Bf16Batch& batch, const Piece& piece,
                             std::size_t working) const;
  const float* widened_skip(std::size_t s, const Bf16Batch& batch, const Piece& piece) const;
  const std::uint16_t* dense_input(std::size_t s) const;
  float* saved_of(std::size_t s, const Piece& piece, std::size_t working) const;
  float* widened_weights(std::size_t s, std::size_t working) const;

  const NetworkPlan& network_;
  const Bf16Plan& plan_;
  const Bf16Kernels& kernels_;
  const Bf16Block& block_;
  std::uint16_t* weights_;
};

}  // namespace covey::models
