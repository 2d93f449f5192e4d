#pragma once

#include <covey/encoding.hpp>
#include <covey/messages.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/offered_compressor.hpp>
#include <covey/strategies/strategy.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace covey::server {

/// What devices of one class are asked: the run's plan with some of its fields changed. A class of
/// less than full width trains a part of the network, the first units of every hidden layer
/// (HeteroFL, Diao et al. 2021): its model and update are vectors of that part.
struct PlanVariant {
  std::string device_class;  ///< "": devices of no class that the run file names
  ModelSpec model;           ///< the network they train
  std::uint32_t local_epochs = 1;
  std::uint32_t batch_size = 10;
  std::string precision;
  std::vector<OfferedCompressor> compressors;  ///< how they may send updates, by preference
  ModelLayout layout;                  ///< of `model`, d' parameters
  Encoding sent = Encoding::kFp32;     ///< as they are sent the model
  std::vector<std::uint32_t> indices;  ///< of their parameters in R^d; empty: they train all of it

  bool whole() const { return indices.empty(); }
  /// The plan of a round, as such a device is sent it; but for the compressor, which is each device's own.
  TrainingPlan plan_of(const TrainingPlan& round_plan) const;
  /// R^d -> R^d'. Not for a whole one.
  void gather(std::span<const float> model, std::span<float> part) const;
  /// R^d' -> R^d, zero elsewhere. Not for a whole one.
  void scatter(std::span<const float> part, std::span<float> model) const;
};

/// A run's plan, number 0, and one for each [client.class], from 1. Immutable.
class PlanVariants {
 public:
  /// `plan`, `layout`: of the run's whole model. Error naming the key: a width that the network
  /// cannot be cut to, a precision that does not go with the run's, or a strategy or secure sum
  /// that needs all devices to train one network alike.
  static Result<PlanVariants> make(const RunConfig& config, const TrainingPlan& plan,
                                   const ModelLayout& layout, const strategies::Strategy& strategy);

  std::size_t size() const { return variants_.size(); }
  const PlanVariant& operator[](std::uint32_t number) const { return variants_[number]; }
  /// 0 for a class without a plan of its own.
  std::uint32_t number_of(std::string_view device_class) const;
  /// Whether some devices train a part of the model only.
  bool has_parts() const;

  /// In place: from sum over k of weight_k * update_k to W times its mean over those that train
  /// each coordinate, W the weight of all, so that FedAvg's division by W gives HeteroFL's mean.
  /// What nobody trained stays 0. weights: sum of weight_k of each variant; `sum`: R^d.
  void average_by_coordinate(std::span<const double> weights, std::span<double> sum) const;

 private:
  std::vector<PlanVariant> variants_;
};

}  // namespace covey::server
