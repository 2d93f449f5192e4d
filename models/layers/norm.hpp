#pragma once

#include "layers/layer.hpp"

namespace covey::models {

/// Per channel over the batch and all positions in training, by running statistics otherwise (Ioffe
/// and Szegedy 2015). One value per channel has no variance: a batch of one example with one
/// position trains with the running statistics, as constants, and leaves them as they are. A batch
/// that goes through the network in pieces is normalised piece by piece (Hoffer et al. 2017, ghost
/// batches).
struct BatchNormStage {
  std::size_t positions = 0;
  std::size_t channels = 0;
  std::size_t weight = 0;  ///< offsets in the parameter vector, each R^channels
  std::size_t bias = 0;
  std::size_t running_mean = 0;
  std::size_t running_variance = 0;
  bool relu = false;
};

/// Per example over groups of channels (Wu and He 2018), or per position over all channels: layer
/// norm (Ba et al. 2016), which is one group per row.
struct GroupNormStage {
  std::size_t rows = 1;       ///< of one example, each normalised on its own
  std::size_t positions = 0;  ///< of one row
  std::size_t channels = 0;
  std::size_t groups = 1;
  std::size_t weight = 0;
  std::size_t bias = 0;
  bool relu = false;
};

Result<void> plan_batch_norm(Planner& planner);
Result<void> plan_group_norm(Planner& planner);
Result<void> plan_layer_norm(Planner& planner);
StageMemory memory_of(const BatchNormStage& stage, std::size_t batch);
void forward(const BatchNormStage& stage, const ForwardPass& pass);
void backward(const BatchNormStage& stage, const BackwardPass& pass, const Descent& descent);
StageMemory memory_of(const GroupNormStage& stage, std::size_t batch);
void forward(const GroupNormStage& stage, const ForwardPass& pass);
void backward(const GroupNormStage& stage, const BackwardPass& pass, const Descent& descent);

}  // namespace covey::models
