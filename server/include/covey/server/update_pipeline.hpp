#pragma once

#include <covey/bytes.hpp>
#include <covey/encoding.hpp>
#include <covey/messages.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/server/round_coordinator.hpp>
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
/// state and one accumulator: O(model). With an IndividualStrategy it keeps every accepted update
/// until the round ends: an fp32 one as it lies (in the daemon a mapped file, so resident memory
/// stays bounded), another decoded. One thread at a time.
class UpdatePipeline {
 public:
  struct Format {
    ModelLayout layout;
    Encoding model = Encoding::kFp32;   ///< as devices are sent the model
    Encoding update = Encoding::kFp32;  ///< as they send their updates
    double max_update_norm = 0;         ///< l2; 0: no limit

    /// What `plan` says of a model of this layout. Error naming a precision or compressor that is
    /// not known.
    static Result<Format> of(const TrainingPlan& plan, ModelLayout layout);
    std::size_t update_size() const { return encoded_size(update, layout); }
  };
  using Rejection = std::pair<RejectReason, std::string>;

  /// `model`: R^d; `state`: the strategy's, empty at a run's start.
  static Result<UpdatePipeline> make(std::unique_ptr<strategies::Strategy> strategy,
                                     ParameterVector model, std::vector<float> state,
                                     Format format);

  void begin();
  /// Nothing: counted. Otherwise why not, for the peer. A client is counted once per round.
  std::optional<Rejection> judge(ClientId client, const Report& report, const SharedBytes& bytes);
  /// Moves the model by the accepted contributions, returns it and forgets them. Error when there
  /// are none, or when the new model would not be finite (the old one stays).
  Result<EncodedModel> apply();

  /// The model as it stands. What is sent follows from the fp32 parameters alone (rounded to
  /// nearest), so a server that starts again sends the same bytes.
  EncodedModel encoded_model() const;

  const ParameterVector& model() const { return model_; }
  const std::vector<float>& strategy_state() const { return state_; }
  strategies::Strategy& strategy() { return *strategy_; }

 private:
  UpdatePipeline() = default;
  std::optional<Rejection> check_report(ClientId client, const Report& report) const;
  Result<std::span<const float>> view(const SharedBytes& bytes);
  std::optional<Rejection> add_to_sums(const Report& report, std::span<const float> update);
  Result<void> run_strategy(strategies::ServerModel model);

  std::unique_ptr<strategies::Strategy> strategy_;
  strategies::SumStrategy* sum_strategy_ = nullptr;  ///< one of these two is strategy_
  strategies::IndividualStrategy* individual_strategy_ = nullptr;
  ParameterVector model_;
  std::vector<float> state_;
  Format format_;
  std::set<ClientId> counted_;
  strategies::ExactSum sum_;  ///< R^d; SumStrategy only
  strategies::ExactScalarSum weight_;
  std::vector<strategies::ExactScalarSum> scalars_;
  struct Kept {
    SharedBytes bytes;  ///< fp32, aligned for float
    double weight = 0;
  };
  std::map<ClientId, Kept> kept_;  ///< IndividualStrategy only
  ParameterVector decoded_;        ///< R^d, once an update was not fp32 aligned for float
};

}  // namespace covey::server
