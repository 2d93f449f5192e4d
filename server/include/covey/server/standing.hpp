#pragma once

#include <covey/ids.hpp>
#include <covey/metrics.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/store.hpp>
#include <covey/server/update_pipeline.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace covey::server {

/// What a server that starts finds in its store. The daemon and the simulated server start from the
/// same.
struct StoredStanding {
  StoredRun run;
  std::optional<RoundMetrics> metrics;  ///< of the last committed round
  std::map<ClientId, std::uint32_t> participations;
  std::map<ClientId, RoundNumber> last_rounds;
  std::vector<RoundMetrics> rounds;  ///< all that ended, in order
};

/// The run in `store`; where there is none, `make_fresh()` is put there first.
Result<StoredStanding> restore(Store& store, const std::function<StoredRun()>& make_fresh);

/// Where the coordinator goes on. `pipeline`: made of `standing.run`.
RunState run_state(const StoredStanding& standing, const UpdatePipeline& pipeline);

/// Whether the model of this round is evaluated: run.eval-every, and the last one always.
bool evaluation_due(const RunConfig& config, RoundNumber round);

/// The rounds that need not be published again: without the last committed one where the server
/// died before its evaluation was stored, since the coordinator evaluates and publishes it.
std::vector<RoundMetrics> published_rounds(const StoredStanding& standing, const RunConfig& config,
                                           bool evaluates);

}  // namespace covey::server
