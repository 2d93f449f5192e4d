#pragma once

#include <atomic>
#include <chrono>
#include <covey/result.hpp>
#include <covey/simulation/training_worker.hpp>
#include <memory>
#include <vector>

#include "rank_messages.hpp"
#include "rank_transport.hpp"

namespace covey::simulation {

/// A rank that trains for rank 0.
struct TrainingRankOptions {
  RankHello hello;  ///< without host, process and workers, which are filled in
  const std::atomic<bool>* stop = nullptr;  ///< someone wants this process to end
  /// How long rank 0 has to send us home after that. Longer than it takes to ask who is still
  /// there.
  std::chrono::milliseconds patience{3000};
};

/// Trains with these workers until rank 0 says goodbye. True: the ranks ended in order.
bool serve_training(RankTransport& transport, TrainingRankOptions options,
                    std::vector<std::unique_ptr<TrainingWorker>> workers);

}  // namespace covey::simulation
