#pragma once

#include <covey/client/trainer.hpp>
#include <covey/models/data_set.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/simulation/evaluation.hpp>
#include <covey/simulation/experiment.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace covey::simulation {

/// Whether a device is Byzantine: round(attack.share * population) devices are (one at least),
/// drawn from the run's seed. Nothing is kept per device.
bool is_attacker(const RunConfig& config, ClientId client, std::uint32_t population);
/// How many are.
std::uint32_t num_attackers(const AttackConfig& config, std::uint32_t population);
/// Number i < num_attackers of them.
ClientId attacker(const RunConfig& config, std::uint32_t i, std::uint32_t population);

/// ALIE's z (Baruch et al. 2019, section 3.3): how many standard deviations an update of f
/// attackers among n may lie off the mean so that a majority still lies further off. 0 where the
/// formula has no answer above.
double alie_z(std::uint32_t n, std::uint32_t f);

/// What the run's Byzantine devices do. They keep to the protocol: whatever they change is clipped,
/// masked and encoded as an honest update is, so every kind also works under secure aggregation.
/// What alie and ipm need of other devices' updates is what up to kColluders attackers would
/// honestly send in the same round; that is computed once per round and model, by whichever worker
/// needs it first, and kept as long as a device may train on that round's model: an update's size
/// for each of up to asynchronous.max-staleness + 1 rounds (2 in synchronous rounds) and classes'
/// plans. May be used by many threads at once; what it makes does not depend on them.
class Attack {
 public:
  static constexpr std::uint32_t kColluders = 8;

  /// Null where attack.kind is "none". Error naming the key where the attack does not go with the
  /// data or the model.
  static Result<std::shared_ptr<Attack>> make(const Experiment& experiment);

  bool is_attacker(ClientId client) const;

  /// A worker of the simulation.
  struct Seat {
    const Experiment& experiment;
    client::SgdTrainer& trainer;
    Experiment::Scratch& scratch;
  };
  /// Instead of an attacker's honest training. Leaves the trainer honest.
  Result<client::TrainedUpdate> train(const Seat& seat, const client::TrainingTask& task,
                                      const client::TrainingControl& control);

  /// Share of test examples of other classes that, with the trigger on them, are taken for
  /// target-label. Nothing where the attack is no backdoor, or no such example is there.
  std::optional<double> backdoor_success(Evaluator& evaluator,
                                         std::span<const float> parameters) const;

 private:
  enum class Kind : std::uint8_t { kLabelFlip, kSignFlip, kGaussian, kAlie, kIpm, kBackdoor };
  /// What colluders agree on: the same for all attackers of a round.
  struct Agreed {
    RoundNumber round{};
    TrainingPlan plan;
    Digest model;
    std::mutex crafting;        ///< held while the update is computed, since all who come want it
    std::vector<float> update;  ///< R^d; empty: not computed yet. Does not change then
  };
  Attack() = default;
  Result<void> plan_trigger(const Experiment& experiment);
  void flip_labels(std::span<std::int32_t> labels) const;
  void poison(std::span<float> features, std::span<std::int32_t> labels) const;
  void add_trigger(std::span<float> example) const;
  client::Deviation deviation(const client::TrainingTask& task,
                              std::shared_ptr<const Agreed> agreed) const;
  std::shared_ptr<Agreed> agreement(const client::TrainingTask& task);
  std::vector<ClientId> colluders(const Experiment& experiment, RoundNumber round) const;
  Result<std::shared_ptr<const Agreed>> agree(const Seat& seat, const client::TrainingTask& task,
                                              const client::TrainingControl& control);
  Result<std::vector<float>> craft(const Seat& seat, const client::TrainingTask& task,
                                   const client::TrainingControl& control) const;

  RunConfig config_;
  Kind kind_ = Kind::kLabelFlip;
  std::uint32_t population_ = 0;
  std::int32_t classes_ = 0;
  double z_ = 0;              ///< of alie
  std::uint32_t rounds_ = 2;  ///< whose models may be trained on at a time

  // of the backdoor
  std::size_t example_size_ = 0;
  std::vector<std::size_t> trigger_;  ///< features that are set to trigger_value_
  float trigger_value_ = 1;
  models::DataSet triggered_;  ///< test examples with the trigger, labelled target-label

  std::mutex mutex_;  ///< over what follows, not over the agreements' updates
  std::vector<std::shared_ptr<Agreed>> agreed_;
  RoundNumber latest_{};
};

}  // namespace covey::simulation
