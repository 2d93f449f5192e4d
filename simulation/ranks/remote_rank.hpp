#pragma once

#include <atomic>
#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/simulation/training_worker.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "rank_messages.hpp"
#include "rank_transport.hpp"

namespace covey::simulation {

/// Which models a training rank holds, as rank 0 knows it: every model is sent once, to whichever
/// worker needs it first. Any thread.
class ModelsOfRank {
 public:
  /// A job with this model begins, and is to be sent with what this says.
  ModelReference begin(const Digest& model);
  void end(std::uint64_t serial);

 private:
  struct Held {
    std::uint64_t serial = 0;
    std::uint32_t jobs = 0;       ///< that use it
    std::uint64_t last_used = 0;  ///< on the clock of begins
  };
  void drop_old(ModelReference& reference);

  std::mutex mutex_;
  std::map<Digest, Held> held_;
  std::uint64_t serials_ = 0;
  std::uint64_t clock_ = 0;
};

/// A training rank as rank 0 sees it. Any thread.
class RemoteRank {
 public:
  /// `give_up`: rank 0 is about to end. `on_lost` is told once, in words, why the rank is gone.
  RemoteRank(RankTransport& transport, std::uint32_t rank, std::function<bool()> give_up,
             std::function<void(const std::string&)> on_lost);

  std::uint32_t rank() const { return rank_; }
  const RankHello& hello() const { return hello_; }
  void set_hello(RankHello hello) { hello_ = std::move(hello); }
  /// "rank 2 (node7)"
  std::string name() const;

  Result<void> send(int channel, std::vector<std::byte> message);
  Result<std::optional<std::vector<std::byte>>> receive(int channel);

  /// Error, which has been told: the rank is gone.
  Error lose(const std::string& reason);
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  /// Nothing more is to be had of it.
  bool done() const { return lost() || give_up_(); }
  ModelsOfRank& models() { return models_; }

 private:
  RankTransport& transport_;
  std::uint32_t rank_;
  std::function<bool()> give_up_;
  std::function<void(const std::string&)> on_lost_;
  RankHello hello_;
  ModelsOfRank models_;
  std::atomic<bool> lost_{false};
};

/// One of a training rank's workers, for a thread of rank 0 to wait at. A rank has one more of
/// these than it has workers: what that one is given is there when the first worker becomes free.
class RemoteWorker : public TrainingWorker {
 public:
  RemoteWorker(RemoteRank& rank, std::uint32_t worker) : rank_(rank), worker_(worker) {}

  Outcome compute(const TrainingJob& job, const std::atomic<bool>& cancelled) override;
  bool queues() const override { return worker_ >= rank_.hello().workers; }

 private:
  Outcome await(const std::atomic<bool>& cancelled);
  std::optional<OutcomeMessage> look();

  RemoteRank& rank_;
  std::uint32_t worker_;
  std::uint64_t jobs_ = 0;
};

}  // namespace covey::simulation
