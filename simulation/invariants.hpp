#pragma once

#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/metrics.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/store.hpp>
#include <covey/time.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace covey::simulation {

/// What has to hold at every moment of a run, whatever goes wrong. It keeps books of its own of
/// what the server does, which survive the server's crashes, and shares no code with what it
/// checks. The first violation stays; its sentence names the rule, the round and the device. One
/// thread.
class Invariants {
 public:
  struct Options {
    RunConfig config;
    /// Messages arrive as they were sent, so that nobody has a reason to refuse a device.
    bool honest_network = true;
    /// A round is committed within this time of a fleet on which no fault strikes any more; 0: not
    /// checked.
    Duration recovery{};
  };
  explicit Invariants(Options options);

  // ---- what the server does
  /// BeginSum; `committed`: as the coordinator knows it.
  void summing(RoundNumber round, RoundNumber committed);
  /// A JudgeUpdate that was not rejected; `committed`: as the coordinator knows it.
  void counted(const server::JudgeUpdate& update, RoundNumber committed);
  /// ApplyStrategy: what the pipeline says is in its sum. `weight`: nothing where it is masked.
  void applying(RoundNumber round, std::size_t updates, std::optional<double> weight);
  /// CommitRound, before it is carried out.
  void committing(const server::CommitRound& commit);
  /// Its transaction is through, whether or not the coordinator ever learns of it.
  void stored();
  void sent(ClientId client, ConnectionId connection, const ServerMessage& message);
  void received(ClientId client, ConnectionId connection, const ClientMessage& message);
  void published(const RoundMetrics& metrics);
  /// After every event that the server was told.
  void settled(const server::RoundCoordinator& coordinator);
  void crashed();
  /// What a server that starts again found: its store, and what it made of that.
  void booted(const server::StoredRun& run, const std::vector<RoundMetrics>& metrics,
              const std::map<ClientId, std::uint32_t>& participations,
              const std::optional<server::PrivacyStatus>& privacy);

  // ---- the clock
  /// `quiet`: no fault strikes at this moment. `status`: of the coordinator, for the sentence.
  void elapsed(Time now, bool quiet, const server::RoundCoordinator& coordinator);

  /// A rule that others looked after.
  void violated(std::string rule, std::string sentence);
  const std::optional<Error>& violation() const { return violation_; }
  /// Committed rounds, by what the store was told.
  RoundNumber durable() const { return durable_; }

 private:
  struct Committed {
    RoundMetrics metrics;
    Digest model;
  };
  /// A task that a device holds, as the server knows.
  struct Held {
    ConnectionId connection{};
    RunId run{};
    RoundNumber round{};
    AggregationId aggregation;
  };
  bool asynchronous() const { return options_.config.asynchronous.enabled(); }
  bool secure() const { return options_.config.secure_aggregation.mode != "off"; }
  std::uint32_t most_participations() const;
  void assigned(ClientId client, ConnectionId connection, const Assignment& assignment);
  void released(ClientId client, RunId run, RoundNumber round);
  void check_accepted_metrics(const RoundMetrics& metrics);
  void check_stored_metrics(const std::vector<RoundMetrics>& metrics);

  Options options_;
  std::optional<Error> violation_;

  // The sum at hand. A synchronous sum is of one round; an asynchronous one takes updates of
  // several.
  RoundNumber sum_round_{};
  std::map<std::pair<RoundNumber, ClientId>, double> accepted_;  ///< to the report's weight
  std::optional<AggregationId> sum_name_;

  // Books of the whole run.
  std::set<std::pair<RoundNumber, ClientId>> committed_updates_;  ///< asynchronous only
  std::set<AggregationId> names_;                                 ///< of attempts at secure sums
  RoundNumber durable_{};  ///< through the store's transaction
  RoundNumber known_{};    ///< committed, as the coordinator says
  std::map<RoundNumber, Committed> rounds_;
  std::optional<Committed> pending_;  ///< handed to the store
  std::map<ClientId, std::uint32_t> participations_;
  std::map<std::pair<RoundNumber, Digest>, Digest> models_;  ///< sent: (round, plan) to blob
  double epsilon_ = 0;
  std::map<ClientId, Held> held_;
  std::optional<Time> quiet_since_;
  RoundNumber quiet_round_{};
};

}  // namespace covey::simulation
