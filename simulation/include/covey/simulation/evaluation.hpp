#pragma once

#include <span>
#include <vector>

#include <covey/metrics.hpp>
#include <covey/models/data_set.hpp>
#include <covey/models/network.hpp>

namespace covey::simulation {

/// Loss and accuracy of a model over a data set, the same bits for any number of threads.
class Evaluator {
 public:
  Evaluator(const models::Network& network, unsigned threads);

  models::Evaluation evaluate(const models::DataSet& data, std::span<const float> parameters);
  /// Accuracy of every shard's own test examples; shards without any are left out.
  std::vector<double> accuracies(const models::DataSet& test, const std::vector<models::Shard>& shards,
                                 std::span<const float> parameters);

 private:
  struct Scratch {
    models::Workspace workspace;
    std::vector<float> features;
    std::vector<std::int32_t> labels;
  };
  models::Evaluation evaluate(const models::DataSet& data, std::span<const std::uint32_t> indices,
                              std::span<const float> parameters, Scratch& scratch);
  template <typename Work>
  void for_each_block(std::size_t blocks, std::size_t examples, Work work);

  const models::Network& network_;
  std::vector<Scratch> scratch_;         ///< one a thread
  std::vector<std::uint32_t> everything_;  ///< 0, 1, 2, ...
};

}  // namespace covey::simulation
