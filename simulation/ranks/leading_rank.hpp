#pragma once

#include <atomic>
#include <covey/result.hpp>
#include <covey/simulation/training_worker.hpp>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "rank_transport.hpp"
#include "remote_rank.hpp"

namespace covey::simulation {

/// Rank 0: runs the fleet, and knows the ranks that train for it. Looks after them from a thread of
/// its own, most closely when the run is stopped: whatever kills a rank often has the rest stopped
/// for it. Other calls belong to one thread, but for the workers.
class LeadingRank {
 public:
  struct Options {
    const std::atomic<bool>* stop = nullptr;  ///< the run is to end soon
    std::function<void(const std::string&)>
        on_lost;  ///< from any thread: "rank 2 (node7) is gone: ..."
    std::chrono::milliseconds ping_interval{1000};
    /// Pings in a row without an answer, after which a rank is taken for dead. Counted, not timed:
    /// then a run that was suspended whole loses nobody.
    std::uint32_t unanswered_pings = 60;
  };
  LeadingRank(RankTransport& transport, Options options);
  ~LeadingRank();
  LeadingRank(const LeadingRank&) = delete;
  LeadingRank& operator=(const LeadingRank&) = delete;

  /// Waits until every rank is ready. Error: one cannot be, or it would not give the same bits as
  /// this one, or the run was stopped before.
  Result<void> gather(const Digest& experiment, const std::string& kernels);
  /// All workers of all ranks. They must end before this object.
  std::vector<std::unique_ptr<TrainingWorker>> workers();
  /// Sends the ranks home. The transport is not to be used afterwards.
  void end();

 private:
  Result<void> check(const RemoteRank& rank, const Digest& experiment,
                     const std::string& kernels) const;
  Result<void> await_hello(RemoteRank& rank);
  void watch();
  void ping_all(std::vector<std::uint32_t>& unanswered);
  void look_for_missing();
  void tell(const RemoteRank& rank, const ControlMessage& message,
            const std::function<bool()>& give_up);
  std::size_t drain_pongs(RemoteRank& rank);
  bool stopped() const { return options_.stop != nullptr && options_.stop->load(); }

  RankTransport& transport_;
  Options options_;
  std::vector<std::unique_ptr<RemoteRank>> ranks_;
  std::atomic<bool> ending_{false};
  bool ended_ = false;
  std::thread watch_;
};

}  // namespace covey::simulation
