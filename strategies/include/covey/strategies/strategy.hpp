#pragma once

#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A strategy tells its whole story in one file: its device half (what changes in local training,
/// what is contributed) and its server half (what is summed, how the sum moves the model).
namespace covey::strategies {

/// What a strategy changes in a device's local steps.
struct LocalRule {
  /// Each step minimises F_k(w) + proximal_mu/2 * ||w - w^t||^2. 0: plain SGD.
  float proximal_mu = 0;
  /// The device also computes F_k(w^t), the mean loss of all its examples at the round's model.
  bool needs_initial_loss = false;
};

/// A device's local training, finished; what a contribution is made of.
struct LocalOutcome {
  std::span<const float> initial;  ///< w^t, R^d; empty where the device keeps no fp32 weights
  std::span<const float> trained;  ///< local model after training, R^d; empty likewise
  double squared_norm = 0;         ///< ||trained - initial||^2
  std::uint64_t num_examples = 0;  ///< n_k
  double initial_loss = 0;         ///< F_k(w^t), only with LocalRule::needs_initial_loss
  std::uint32_t steps = 0;
  float learning_rate = 0;
};

/// Enters the sums as weight * update (R^d), weight, and each scalar. All finite, weight >= 0.
struct Contribution {
  double weight = 1;
  std::vector<double> scalars;
};

/// What the server moves: parameters R^d, and the strategy's own state (momentum, ...), which the
/// server persists with every committed round.
struct ServerModel {
  std::span<float> parameters;
  std::span<float> state;
};

/// The exact sums over a round's accepted contributions.
struct Sum {
  std::span<const double> vector;  ///< sum of weight_k * update_k, R^d
  double weight = 0;               ///< sum of weight_k
  std::vector<double> scalars;     ///< sum of scalars, Strategy::num_scalars() of them
  std::uint32_t count = 0;         ///< contributions summed, >= 1
};

/// One contribution as an IndividualStrategy sees it.
struct IndividualUpdate {
  ClientId client{};
  std::span<const float> update;  ///< R^d
  double weight = 0;
};

/// FedAvg's server step, for every strategy that ends in it: w += sum.vector / sum.weight, formed
/// in double and rounded once per parameter. Error, and nothing changed, if the weights sum to
/// zero.
Result<void> add_weighted_mean(const Sum& sum, std::span<float> parameters);

/// Thread rule: const methods may run on many threads at once; `apply`/`aggregate` on one.
/// Failures are Results; nothing here may throw.
class Strategy {
 public:
  virtual ~Strategy() = default;

  virtual std::string_view name() const = 0;

  // ---- device half
  virtual LocalRule local_rule() const { return {}; }
  /// Weight and scalars of the contribution. The default is FedAvg's: num_examples, no scalars.
  virtual Result<Contribution> weigh(const LocalOutcome& outcome) const;
  /// True where the device's vector is the plain difference trained - initial: then it can be made
  /// by devices that train in low precision and hold no fp32 weights. A strategy that says false
  /// writes its own vector in `fill_update`.
  virtual bool sends_difference() const { return true; }
  /// The device's vector, R^d; called only where sends_difference() is false.
  virtual Result<void> fill_update(const LocalOutcome& outcome, std::span<float> update) const;

  // ---- server half
  /// Scalars that every contribution carries.
  virtual std::size_t num_scalars() const { return 0; }
  /// Floats of ServerModel::state for a model of `num_parameters`; zero at the run's start.
  virtual std::size_t state_size(std::size_t /*num_parameters*/) const { return 0; }
};

/// Needs only sums: streams in O(d) server memory, and works under secure aggregation,
/// asynchronously and through edge aggregators.
class SumStrategy : public Strategy {
 public:
  virtual Result<void> apply(const Sum& sum, ServerModel model) = 0;
  /// True where an update says where the model should go, and not by how much it should move: in
  /// asynchronous aggregation base + update - model then enters the sum in the update's place, base
  /// being the model that the device began with, model the one that is moved (FedAsync). The server
  /// keeps every base that devices are at work on, and asynchronous.buffer has to be 1.
  virtual bool needs_base() const { return false; }
};

/// Must see each update (medians, Krum, ...): cannot run under secure aggregation.
class IndividualStrategy : public Strategy {
 public:
  /// `updates` are ordered by client; at least one.
  virtual Result<void> aggregate(std::span<const IndividualUpdate> updates, ServerModel model) = 0;
};

/// {"proximal-mu", 1.0}: the keys of [strategy] beside `name` and `plugin`.
using Parameters = std::vector<std::pair<std::string, double>>;

}  // namespace covey::strategies
