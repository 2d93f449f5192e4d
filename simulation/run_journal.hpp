#pragma once

#include <atomic>
#include <chrono>
#include <covey/client/trainer.hpp>
#include <covey/server/round_coordinator.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "journal.hpp"

namespace covey::simulation {

/// Between a simulation and its computing. In a run that is written down, every answer passes
/// through here into the journal, and now and then a committed round becomes a snapshot. In a run
/// that goes on, virtual time starts at nought again, and the answers come out of the journal,
/// without computing, until the snapshot's round: there the model and the strategy's state are put
/// back, and computing is real again. What was under way at that moment is computed for real on the
/// way there. One thread at a time.
///
/// Models of the past are not kept: while answers are read, devices train on stand-ins of the right
/// size, and each model that a device still needs later is in the snapshot.
class RunJournal {
 public:
  struct Options {
    std::string folder;
    bool resume = false;
    Digest run;                                  ///< of everything that the run follows from
    std::optional<std::uint32_t> max_staleness;  ///< of updates, where rounds are asynchronous
    bool copies_messages = false;  ///< so that a model under way is not known by its bytes
    std::chrono::milliseconds snapshot_pause{1000};  ///< at least so long from one to the next
    const std::atomic<bool>* stop =
        nullptr;  ///< once it is set, computing gives errors that mean nothing
  };
  /// Begins a journal, or reads the one there. With `resume` and no snapshot yet the run begins
  /// again.
  static Result<std::unique_ptr<RunJournal>> open(Options options);
  /// The run is done: its journal says nothing that its results do not.
  static void remove(const std::string& folder);

  bool replaying() const { return reader_.has_value(); }
  /// What went wrong: the journal and the run disagree, or the disk refuses. The run must end.
  const std::optional<Error>& error() const { return error_; }

  // ---- devices
  void begins(std::uint64_t training, const client::TrainingTask& task);
  /// Whether its update has to be computed.
  bool computes(std::uint64_t training) const;
  /// It is void.
  void ends(ClientId client) { under_way_.erase(client); }
  Result<client::TrainedUpdate> take(ClientId client,
                                     const std::function<Result<client::TrainedUpdate>()>& compute);

  // ---- the server
  using Rejection = std::pair<RejectReason, std::string>;
  std::optional<Rejection> judge(const server::JudgeUpdate& action,
                                 const std::function<std::optional<Rejection>()>& compute);
  /// `restore` puts the snapshot's model and state into the pipeline; called at the moment where
  /// reading ends and computing begins.
  server::StrategyApplied apply(RoundNumber round,
                                const std::function<server::StrategyApplied()>& compute,
                                const std::function<Result<void>(const Snapshot&)>& restore);
  server::ModelEvaluated evaluate(RoundNumber round,
                                  const std::function<server::ModelEvaluated()>& compute);
  /// Fills in wall_s and devices.
  void publish(RoundMetrics& metrics, const std::function<void(RoundMetrics&)>& compute);
  /// The round of the last `apply` is durable now. `rest` fills in what the snapshot holds of the
  /// server: state, noise_bytes and wall_s.
  void committed(RoundNumber round, const std::function<void(Snapshot&)>& rest);

 private:
  struct UnderWay {
    std::uint64_t training = 0;
    RoundNumber round{};
    SharedBytes model;     ///< that it began with
    SharedBytes residual;  ///< likewise
    bool taken = false;
  };
  /// Bytes that are alive while somebody else holds them.
  struct Watched {
    explicit Watched(const SharedBytes& bytes) : owner(bytes.owner()), view(bytes.span()) {}
    std::weak_ptr<const void> owner;
    std::span<const std::byte> view;
  };
  /// The model after a round.
  struct Version {
    RoundNumber round{};
    Watched parameters;
    std::vector<Watched> sent;
  };

  RunJournal() = default;
  Result<void> resume();
  Result<void> check_residual(const UnderWay& work, ClientId client);
  void watch_residual(std::uint64_t training, const client::TrainedUpdate& update);
  template <typename Kind>
  std::optional<Kind> expect(const Record& asked);
  void write(const Record& record);
  void disagree(const std::string& journal, const std::string& run);
  client::TrainedUpdate stand_in(const TrainedRecord& record);
  server::EncodedModel stand_in(const AppliedRecord& record);
  void remember(RoundNumber round, const server::EncodedModel& model);
  void finish_replay(RoundNumber round,
                     const std::function<Result<void>(const Snapshot&)>& restore);
  bool may_still_count(const UnderWay& work, RoundNumber committed) const;
  void gather(Snapshot& snapshot) const;
  bool stopped() const;

  Options options_;
  std::optional<Error> error_;
  std::optional<JournalWriter> writer_;  ///< one of these two
  std::optional<JournalReader> reader_;
  Snapshot snapshot_;  ///< where reading ends
  std::unordered_map<ClientId, UnderWay> under_way_;
  std::map<std::uint64_t, Watched> residuals_;  ///< of error feedback, by the training they came of
  SharedBytes blank_residual_;  ///< stand-in of one that nobody needs at the snapshot
  std::vector<Version> versions_;             ///< those that somebody holds, by round
  server::EncodedModel previous_, last_;      ///< `previous_` only where messages are copied
  std::map<std::size_t, SharedBytes> blank_;  ///< stand-ins of updates, by size
  std::set<Digest> stand_ins_;                ///< of models, as devices got them
  RoundNumber resumed_{};                     ///< where reading ended; 0: nothing was read
  std::chrono::steady_clock::time_point last_snapshot_{};
  std::chrono::steady_clock::duration snapshot_cost_{};
};

}  // namespace covey::simulation
