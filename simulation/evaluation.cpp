#include <algorithm>
#include <atomic>
#include <covey/assert.hpp>
#include <covey/simulation/evaluation.hpp>
#include <numeric>
#include <thread>

namespace covey::simulation {
namespace {

// Examples evaluated together, so that their activations stay in L2; fewer where each has a
// prediction per step of a sequence, and activations likewise.
constexpr std::size_t kBlock = 250;
constexpr std::size_t kBlockPredictions = 2000;
// Below so many multiply-adds a thread costs more than it saves (a start takes about 50 us).
constexpr double kWorthThreads = 2e6;

}  // namespace

Result<Evaluator> Evaluator::make(const TrainingPlan& plan,
                                  const models::EngineFactory& make_engine, unsigned threads) {
  Evaluator evaluator;
  COVEY_ASSIGN(evaluator.encoding_, model_encoding(plan.precision));
  for (unsigned i = 0; i < std::max(1u, threads); ++i) {
    Scratch scratch;
    COVEY_ASSIGN(scratch.engine, make_engine(plan.model, plan.precision));
    const models::DataShape shape = scratch.engine->data_shape();
    const std::size_t block =
        std::clamp<std::size_t>(kBlockPredictions / shape.labels_per_example, 1, kBlock);
    scratch.engine->reserve(block);
    scratch.features.resize(block * shape.example_size);
    scratch.labels.resize(block * shape.labels_per_example);
    evaluator.shape_ = shape;
    evaluator.block_ = block;
    evaluator.scratch_.push_back(std::move(scratch));
  }
  return evaluator;
}

template <typename Work>
void Evaluator::for_each_block(std::size_t blocks, std::size_t examples,
                               std::span<const float> parameters, Work work) {
  const double cost = static_cast<double>(examples * shape_.labels_per_example) *
                      static_cast<double>(parameters.size());
  const std::size_t threads =
      cost < kWorthThreads ? 1 : std::min(scratch_.size(), std::max<std::size_t>(blocks, 1));
  const SharedBytes model = encode(encoding_, scratch_[0].engine->layout(), parameters);
  std::atomic<std::size_t> next{0};
  const auto run = [&](Scratch& scratch) {
    const auto loaded = scratch.engine->load(model.span());
    COVEY_ASSERT(loaded.ok());  // these bytes are of our own making
    for (std::size_t block = next++; block < blocks; block = next++) work(block, scratch);
  };
  std::vector<std::jthread> helpers;
  for (std::size_t i = 1; i < threads; ++i) helpers.emplace_back([&, i] { run(scratch_[i]); });
  run(scratch_[0]);
}

models::Evaluation Evaluator::evaluate(const models::DataSet& data,
                                       std::span<const std::uint32_t> indices,
                                       Scratch& scratch) const {
  models::Evaluation total;
  for (std::size_t at = 0; at < indices.size(); at += block_) {
    const auto some = indices.subspan(at, std::min(block_, indices.size() - at));
    const std::span features(scratch.features.data(), some.size() * shape_.example_size);
    const std::span labels(scratch.labels.data(), some.size() * shape_.labels_per_example);
    data.gather(some, features, labels);
    const auto part = scratch.engine->evaluate(features, labels);
    total.loss_sum += part.loss_sum;
    total.correct += part.correct;
    total.examples += part.examples;
  }
  return total;
}

models::Evaluation Evaluator::evaluate(const models::DataSet& data,
                                       std::span<const float> parameters) {
  if (everything_.size() != data.size()) {
    everything_.resize(data.size());
    std::iota(everything_.begin(), everything_.end(), 0u);
  }
  const std::size_t blocks = (data.size() + block_ - 1) / block_;
  std::vector<models::Evaluation> parts(blocks);
  for_each_block(blocks, data.size(), parameters, [&](std::size_t block, Scratch& scratch) {
    const std::span all(everything_);
    const std::size_t at = block * block_;
    parts[block] = evaluate(data, all.subspan(at, std::min(block_, all.size() - at)), scratch);
  });
  models::Evaluation
      total;  // in order of blocks, so that the loss has the same bits on any threads
  for (const auto& part : parts) {
    total.loss_sum += part.loss_sum;
    total.correct += part.correct;
    total.examples += part.examples;
  }
  return total;
}

std::vector<double> Evaluator::accuracies(const models::DataSet& test,
                                          std::span<const models::Shard> shards,
                                          std::span<const float> parameters) {
  std::vector<double> accuracies(shards.size(), -1);
  for_each_block(shards.size(), test.size(), parameters, [&](std::size_t shard, Scratch& scratch) {
    if (shards[shard].test.empty()) return;
    accuracies[shard] = evaluate(test, shards[shard].test, scratch).accuracy();
  });
  std::erase(accuracies, -1);
  return accuracies;
}

}  // namespace covey::simulation
