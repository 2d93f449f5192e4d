#pragma once

#include <covey/compression/compressor.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/digest.hpp>
#include <covey/encoding.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/round_coordinator.hpp>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace covey::server {

/// How devices are sent a model, beyond the whole of it: server.model-history and
/// .model-compressor.
struct ModelSending {
  /// So many earlier models a device may start from; with a compressor, if not 0, as many as their
  /// steps are shorter than the model.
  std::uint32_t history = 0;
  /// Devices are sent s_t = s_{t-1} + Q(w_t - s_{t-1}) instead of the model w_t.
  std::optional<CompressorSpec> compressor = std::nullopt;

  /// Error, naming the key, for a compressor that is not known or does not go with the plan.
  static Result<ModelSending> of(const RunConfig& config, const TrainingPlan& plan);
};

/// What devices are sent of each model, and as which differences. Memory: the last `history` models
/// as they were sent and a difference to each, or with a compressor one fp32 model and steps of at
/// most one model's size. One thread at a time.
class ModelSender {
 public:
  ModelSender() = default;
  static Result<ModelSender> make(const ModelSending& sending, const ModelLayout& layout,
                                  std::uint64_t seed);

  /// Floats that a server which starts again needs: d with a compressor, else none.
  std::size_t state_size() const { return sent_.size(); }
  std::span<const float> state() const { return sent_.span(); }
  /// Where the run stands: `state` as it was then, or empty at its start, when devices are sent the
  /// model itself.
  void begin(std::span<const float> model, std::span<const float> state);

  /// What the model that devices are sent is made of; `model` unless there is a compressor.
  std::span<const float> sent(std::span<const float> model) const {
    return compressor_ ? sent_.span() : model;
  }
  /// The next model of the run, made in `round`.
  void advance(RoundNumber round, std::span<const float> model);

  /// Whether it does not know yet what devices hold: `remember` tells.
  bool needs_current() const { return history_ > 0 && !compressor_ && earlier_.empty(); }
  void remember(const EncodedModel& model, std::span<const Encoding> encodings);
  /// Fills in the differences that lead to this model, the next one; and remembers it. encodings:
  /// of `sent` and of each of the variants.
  void offer(EncodedModel& model, std::span<const Encoding> encodings);

 private:
  /// A model as devices with one kind of plan were sent it; kinds that are sent the same bytes are
  /// one.
  struct Blob {
    SharedBytes bytes;
    std::size_t element_size = 4;
  };
  struct Step {
    Digest base;                    ///< of the model that it starts from
    std::vector<std::byte> framed;  ///< compression::frame_model_step
  };
  static std::vector<Blob> blobs_of(const EncodedModel& model, std::span<const Encoding> encodings);
  void offer_differences(EncodedModel& model, const std::vector<Blob>& blobs) const;
  void offer_steps(EncodedModel& model);

  std::uint32_t history_ = 0;
  std::deque<std::vector<Blob>> earlier_;  ///< newest first

  std::optional<CompressorSpec> compressor_;
  std::unique_ptr<compression::Compressor> method_;
  std::uint64_t seed_ = 0;
  ParameterVector sent_;     ///< s_t, R^d
  ParameterVector moved_;    ///< R^d: w_t - s_{t-1}, and what is left of it
  ParameterVector scratch_;  ///< R^d
  std::deque<Step> steps_;   ///< to s_t, oldest first
};

}  // namespace covey::server
