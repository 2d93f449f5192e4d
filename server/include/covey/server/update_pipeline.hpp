#pragma once

#include <covey/bytes.hpp>
#include <covey/messages.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/strategies/exact_sum.hpp>
#include <covey/strategies/strategy.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace covey::server {

/// What an update passes through: hash, decoding, length, finiteness, norm, and into the round's
/// sum. It either enters whole or changes nothing. Holds the current model, the strategy with its
/// state and one accumulator: O(model). With an IndividualStrategy it keeps every accepted update's
/// SharedBytes (in the daemon a mapped file, so resident memory stays bounded) until the round
/// ends. One thread at a time.
class UpdatePipeline {
 public:
  struct Limits {
    std::size_t num_parameters = 0;
    double max_update_norm = 0;  ///< l2; 0: no limit
  };
  using Rejection = std::pair<RejectReason, std::string>;

  /// `model`: R^d; `state`: the strategy's, empty at a run's start.
  static Result<UpdatePipeline> make(std::unique_ptr<strategies::Strategy> strategy,
                                     ParameterVector model, std::vector<float> state,
                                     Limits limits);

  void begin();
  /// Nothing: counted. Otherwise why not, for the peer. A client is counted once per round.
  std::optional<Rejection> judge(ClientId client, const Report& report, const SharedBytes& bytes);
  /// Moves the model by the accepted contributions, returns it encoded as fp32 and forgets them.
  /// Error when there are none, or when the new model would not be finite (the old one stays).
  Result<SharedBytes> apply();

  const ParameterVector& model() const { return model_; }
  const std::vector<float>& strategy_state() const { return state_; }
  strategies::Strategy& strategy() { return *strategy_; }

 private:
  UpdatePipeline() = default;
  std::optional<Rejection> check_report(ClientId client, const Report& report) const;
  std::span<const float> view(const SharedBytes& bytes);
  std::optional<Rejection> add_to_sums(const Report& report, std::span<const float> update);
  Result<void> run_strategy(strategies::ServerModel model);

  std::unique_ptr<strategies::Strategy> strategy_;
  strategies::SumStrategy* sum_strategy_ = nullptr;  ///< one of these two is strategy_
  strategies::IndividualStrategy* individual_strategy_ = nullptr;
  ParameterVector model_;
  std::vector<float> state_;
  Limits limits_;
  std::set<ClientId> counted_;
  strategies::ExactSum sum_;  ///< R^d; SumStrategy only
  strategies::ExactScalarSum weight_;
  std::vector<strategies::ExactScalarSum> scalars_;
  struct Kept {
    SharedBytes bytes;  ///< aligned for float
    double weight = 0;
  };
  std::map<ClientId, Kept> kept_;  ///< IndividualStrategy only
  ParameterVector decoded_;        ///< R^d once an update's bytes were not aligned for float
};

}  // namespace covey::server
