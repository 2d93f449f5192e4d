#include <covey/simulation/evaluation.hpp>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

namespace covey::simulation {
namespace {

constexpr std::size_t kBlock = 250;  // examples evaluated together: their activations stay in L2
// Below so many multiply-adds a thread costs more than it saves (a start takes about 50 us).
constexpr double kWorthThreads = 2e6;

}  // namespace

Evaluator::Evaluator(const models::Network& network, unsigned threads) : network_(network) {
  for (unsigned i = 0; i < std::max(1u, threads); ++i) {
    scratch_.push_back({models::Workspace(network, kBlock),
                        std::vector<float>(kBlock * network.inputs()),
                        std::vector<std::int32_t>(kBlock)});
  }
}

template <typename Work>
void Evaluator::for_each_block(std::size_t blocks, std::size_t examples, Work work) {
  const double cost = static_cast<double>(examples) * static_cast<double>(network_.num_parameters());
  const std::size_t threads = cost < kWorthThreads ? 1 : std::min(scratch_.size(), blocks);
  std::atomic<std::size_t> next{0};
  const auto run = [&](Scratch& scratch) {
    for (std::size_t block = next++; block < blocks; block = next++) work(block, scratch);
  };
  std::vector<std::jthread> helpers;
  for (std::size_t i = 1; i < threads; ++i) helpers.emplace_back([&, i] { run(scratch_[i]); });
  run(scratch_[0]);
}

models::Evaluation Evaluator::evaluate(const models::DataSet& data,
                                       std::span<const std::uint32_t> indices,
                                       std::span<const float> parameters, Scratch& scratch) {
  models::Evaluation total;
  for (std::size_t at = 0; at < indices.size(); at += kBlock) {
    const auto some = indices.subspan(at, std::min(kBlock, indices.size() - at));
    const std::span features(scratch.features.data(), some.size() * network_.inputs());
    const std::span labels(scratch.labels.data(), some.size());
    data.gather(some, features, labels);
    const auto part = network_.evaluate(scratch.workspace, features, labels, parameters);
    total.loss_sum += part.loss_sum;
    total.correct += part.correct;
    total.examples += part.examples;
  }
  return total;
}

models::Evaluation Evaluator::evaluate(const models::DataSet& data, std::span<const float> parameters) {
  if (everything_.size() != data.size()) {
    everything_.resize(data.size());
    std::iota(everything_.begin(), everything_.end(), 0u);
  }
  const std::size_t blocks = (data.size() + kBlock - 1) / kBlock;
  std::vector<models::Evaluation> parts(blocks);
  for_each_block(blocks, data.size(), [&](std::size_t block, Scratch& scratch) {
    const std::span all(everything_);
    const std::size_t at = block * kBlock;
    parts[block] =
        evaluate(data, all.subspan(at, std::min(kBlock, all.size() - at)), parameters, scratch);
  });
  models::Evaluation total;  // in order of blocks, so that the loss has the same bits on any threads
  for (const auto& part : parts) {
    total.loss_sum += part.loss_sum;
    total.correct += part.correct;
    total.examples += part.examples;
  }
  return total;
}

std::vector<double> Evaluator::accuracies(const models::DataSet& test,
                                          const std::vector<models::Shard>& shards,
                                          std::span<const float> parameters) {
  std::vector<double> accuracies(shards.size(), -1);
  for_each_block(shards.size(), test.size(), [&](std::size_t shard, Scratch& scratch) {
    if (shards[shard].test.empty()) return;
    accuracies[shard] = evaluate(test, shards[shard].test, parameters, scratch).accuracy();
  });
  std::erase(accuracies, -1);
  return accuracies;
}

}  // namespace covey::simulation
