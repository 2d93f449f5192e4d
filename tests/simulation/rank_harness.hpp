#pragma once

#include <atomic>
#include <covey/models/network.hpp>
#include <covey/simulation/simulate.hpp>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "simulation/local_worker.hpp"
#include "simulation/ranks/experiment_fingerprint.hpp"
#include "simulation/ranks/leading_rank.hpp"
#include "simulation/ranks/training_rank.hpp"

namespace covey::testing {

/// Ranks in one process: what MPI does for processes, with ranks that can be cut off.
class RankNetwork {
 public:
  explicit RankNetwork(std::uint32_t size) : size_(size) {}

  /// From now on nothing goes to that rank or comes from it, and nobody is told.
  void cut(std::uint32_t rank) {
    const std::lock_guard lock(mutex_);
    cut_.insert(rank);
  }
  /// From now on sending to that rank is an error.
  void refuse(std::uint32_t rank) {
    const std::lock_guard lock(mutex_);
    refusing_.insert(rank);
  }
  std::uint64_t bytes(std::uint32_t from, std::uint32_t to) {
    const std::lock_guard lock(mutex_);
    return bytes_[{from, to}];
  }
  std::uint64_t messages(std::uint32_t from, std::uint32_t to) {
    const std::lock_guard lock(mutex_);
    return messages_[{from, to}];
  }

 private:
  friend class RankPort;
  std::uint32_t size_;
  std::mutex mutex_;
  std::map<std::tuple<std::uint32_t, std::uint32_t, int>, std::deque<std::vector<std::byte>>> mail_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> bytes_, messages_;
  std::set<std::uint32_t> cut_, refusing_;
};

class RankPort : public simulation::RankTransport {
 public:
  RankPort(RankNetwork& network, std::uint32_t rank) : network_(network), rank_(rank) {}

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return network_.size_; }
  Result<void> send(std::uint32_t to, int channel, std::vector<std::byte> message,
                    const std::function<bool()>&) override {
    const std::lock_guard lock(network_.mutex_);
    if (network_.refusing_.contains(to)) return failed("the network says no");
    if (network_.cut_.contains(to) || network_.cut_.contains(rank_)) return {};
    network_.bytes_[{rank_, to}] += message.size();
    ++network_.messages_[{rank_, to}];
    network_.mail_[{rank_, to, channel}].push_back(std::move(message));
    return {};
  }
  Result<std::optional<std::vector<std::byte>>> receive(std::uint32_t from, int channel,
                                                        const std::function<bool()>&) override {
    const std::lock_guard lock(network_.mutex_);
    auto& box = network_.mail_[{from, rank_, channel}];
    if (box.empty() || network_.cut_.contains(from)) {
      return std::optional<std::vector<std::byte>>();
    }
    auto message = std::move(box.front());
    box.pop_front();
    return std::optional<std::vector<std::byte>>(std::move(message));
  }
  void end(bool orderly) override { ended_orderly = orderly; }

  std::optional<bool> ended_orderly;

 private:
  RankNetwork& network_;
  std::uint32_t rank_;
};

/// An experiment and everything that a rank needs to train for it.
struct RankRun {
  RunConfig config;
  strategies::Registry registry;
  simulation::Experiment experiment;

  std::vector<std::unique_ptr<simulation::TrainingWorker>> workers(unsigned count) const {
    std::vector<std::unique_ptr<simulation::TrainingWorker>> made;
    for (unsigned i = 0; i < count; ++i) {
      made.push_back(std::make_unique<simulation::LocalWorker>(
          experiment, registry, simulation::training_secrets(config.seed)));
    }
    return made;
  }
  simulation::RankHello hello() const {
    simulation::RankHello made;
    made.experiment = simulation::fingerprint(experiment);
    made.kernels = models::kernel_instruction_set();
    return made;
  }
};

/// A training rank on a thread of its own.
class TrainingThread {
 public:
  TrainingThread(RankNetwork& network, std::uint32_t rank, simulation::RankHello hello,
                 std::vector<std::unique_ptr<simulation::TrainingWorker>> workers)
      : port_(network, rank) {
    thread_ = std::thread([this, told = std::move(hello), made = std::move(workers)]() mutable {
      simulation::TrainingRankOptions options;
      options.hello = std::move(told);
      options.stop = &stop_;
      options.patience = std::chrono::milliseconds(50);
      simulation::serve_training(port_, std::move(options), std::move(made));
    });
  }
  ~TrainingThread() {
    stop_ = true;
    thread_.join();
  }
  TrainingThread(const TrainingThread&) = delete;
  TrainingThread& operator=(const TrainingThread&) = delete;

 private:
  RankPort port_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace covey::testing
