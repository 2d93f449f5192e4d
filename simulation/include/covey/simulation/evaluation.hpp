#pragma once

#include <covey/messages.hpp>
#include <covey/metrics.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/engine.hpp>
#include <covey/result.hpp>
#include <memory>
#include <span>
#include <vector>

namespace covey::simulation {

/// Loss and accuracy of a model over a data set as a device has it: encoded as the plan's precision
/// says and computed in it. The same bits for any number of threads.
class Evaluator {
 public:
  /// Error where the plan's network cannot be computed in its precision.
  static Result<Evaluator> make(const TrainingPlan& plan, const models::EngineFactory& make_engine,
                                unsigned threads);

  /// parameters: fp32, R^d.
  models::Evaluation evaluate(const models::DataSet& data, std::span<const float> parameters);
  /// Accuracy of every shard's own test examples; shards without any are left out.
  std::vector<double> accuracies(const models::DataSet& test,
                                 std::span<const models::Shard> shards,
                                 std::span<const float> parameters);

 private:
  struct Scratch {
    std::unique_ptr<models::Engine> engine;
    std::vector<float> features;
    std::vector<std::int32_t> labels;
  };
  Evaluator() = default;
  models::Evaluation evaluate(const models::DataSet& data, std::span<const std::uint32_t> indices,
                              Scratch& scratch) const;
  template <typename Work>
  void for_each_block(std::size_t blocks, std::size_t examples, std::span<const float> parameters,
                      Work work);

  Encoding encoding_ = Encoding::kFp32;
  models::DataShape shape_;
  std::size_t block_ = 1;                  ///< examples evaluated together
  std::vector<Scratch> scratch_;           ///< one a thread
  std::vector<std::uint32_t> everything_;  ///< 0, 1, 2, ...
};

}  // namespace covey::simulation
