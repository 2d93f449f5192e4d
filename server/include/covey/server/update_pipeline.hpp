#pragma once

#include <covey/bytes.hpp>
#include <covey/encoding.hpp>
#include <covey/messages.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/private_release.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/privacy/sum_figures.hpp>
#include <covey/result.hpp>
#include <covey/server/model_sender.hpp>
#include <covey/server/offered_compressor.hpp>
#include <covey/server/plan_variants.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/strategies/exact_sum.hpp>
#include <covey/strategies/strategy.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace covey::server {

/// The server's half of differential privacy, where its noise comes from, and what unmasking may use.
struct PipelinePrivacy {
  std::optional<privacy::PrivateRelease> release = std::nullopt;
  std::unique_ptr<privacy::SecretSource> secrets = nullptr;
  unsigned threads = 1;
};

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
    std::vector<OfferedCompressor> compressors;  ///< how they may send their updates, by preference
    double max_update_norm = 0;         ///< l2; 0: no limit
    std::uint64_t seed = 0;             ///< of the plan
    PrivacyPlan privacy;
    std::optional<privacy::SumFormat> sum;  ///< under secure aggregation: updates come masked
    bool adaptive_clip = false;  ///< of the sum: RunConfig's secure-aggregation.adaptive-clip
    /// Where classes of devices have plans of their own; or null. Number 0 is what is said above.
    std::shared_ptr<const PlanVariants> variants = nullptr;

    AsynchronousConfig asynchronous = {};  ///< what stale updates count
    ModelSending sending = {};

    /// What `plan` says of a model of this layout, for a strategy of so many scalars. `compressors`: by
    /// preference; empty: the plan's. Error naming a precision or compressor that is not known, or why no
    /// secure sum can hold the updates.
    static Result<Format> of(const TrainingPlan& plan, ModelLayout layout, std::size_t num_scalars,
                             const std::vector<std::string>& compressors = {});
    /// As JudgeUpdate names it: by the numbers of the device's plan and its compressor.
    const OfferedCompressor& compressor(std::uint32_t variant, std::uint32_t number) const;
    /// That a report carries in the clear.
    std::size_t reported_scalars(std::size_t strategy_scalars) const;
  };
  using Rejection = std::pair<RejectReason, std::string>;

  /// `model`: R^d; `state`: what state() gave, empty at a run's start.
  static Result<UpdatePipeline> make(std::unique_ptr<strategies::Strategy> strategy,
                                     ParameterVector model, std::vector<float> state,
                                     Format format, PipelinePrivacy privacy = {});

  /// Forgets whatever was summed.
  void begin(RoundNumber round = {});
  /// Nothing: counted. Otherwise why not, for the peer. A client is counted once per round. A stale
  /// update enters the sum times s(staleness), its weight and scalars as they are, so that it moves the
  /// model less and does not make the others count more (FedBuff).
  std::optional<Rejection> judge(ClientId client, const Report& report, const SharedBytes& bytes);
  std::optional<Rejection> judge(const JudgeUpdate& action, const SharedBytes& bytes);
  /// Takes the masks off the sum of this round's updates; before `apply`. Error as UnmaskJob::run.
  Result<privacy::UnmaskJob::Figures> unmask(const privacy::UnmaskJob& job,
                                             std::optional<ClientId>* culprit = nullptr);
  /// Moves the model by the accepted contributions, returns it and forgets them. Error when there
  /// are none, or when the new model would not be finite (the old one stays).
  Result<EncodedModel> apply();

  /// The model as it stands. What is sent follows from the fp32 parameters alone (rounded to
  /// nearest) or, with server.model-compressor, from the state: a server that starts again sends the
  /// same bytes. Without the differences, which only `apply` gives: they are of this process.
  EncodedModel encoded_model() const;

  const ParameterVector& model() const { return model_; }
  /// The strategy's state, the privacy mechanism's and the model as devices were sent it, where that is
  /// another: what a server that starts again needs.
  std::vector<float> state() const;
  std::optional<PrivacyStatus> privacy_status() const;
  /// The range of the next sum's coordinates, where it adapts.
  std::optional<double> sum_clip() const;
  /// Of the last `apply` under secure aggregation without differential privacy.
  const std::optional<SecureSumFigures>& sum_figures() const { return figures_; }
  /// The packed sum of the round's masked updates; unmasked behind `unmask`, until `apply`.
  std::span<const std::uint64_t> packed_sum() const { return packed_sum_; }
  /// How masked updates are packed; nothing without secure aggregation.
  const std::optional<privacy::SumFormat>& sum_format() const { return format_.sum; }
  /// Of the reports in the round's sum, in all; nothing where weights come masked.
  std::optional<double> summed_weight() const;
  /// Who is in the round's sum.
  const std::set<ClientId>& counted() const { return counted_; }
  strategies::Strategy& strategy() { return *strategy_; }

 private:
  UpdatePipeline() = default;
  std::optional<Rejection> check_report(ClientId client, const Report& report) const;
  Result<std::span<const float>> view(const JudgeUpdate& action, const SharedBytes& bytes);
  Result<void> decode_into(const JudgeUpdate& action, const SharedBytes& bytes,
                           const ModelLayout& layout, std::span<float> out);
  std::optional<Rejection> check_bytes(const JudgeUpdate& action, const SharedBytes& bytes) const;
  std::optional<Rejection> judge_plain(const JudgeUpdate& action, const SharedBytes& bytes);
  std::optional<Rejection> add_to_sums(const JudgeUpdate& action, std::span<const float> update);
  Result<std::span<const float>> from_model(std::span<const float> update, const SharedBytes& base);
  std::vector<SharedBytes> encode_variants(const SharedBytes& sent) const;
  std::vector<Encoding> sent_encodings() const;
  double norm_limit() const;
  Result<void> run_strategy(strategies::ServerModel model);
  Result<void> run_sum_strategy(strategies::ServerModel model);
  Result<strategies::Sum> open_sum(std::vector<double>& vector);
  Result<void> adapt_clip();

  std::unique_ptr<strategies::Strategy> strategy_;
  strategies::SumStrategy* sum_strategy_ = nullptr;  ///< one of these two is strategy_
  strategies::IndividualStrategy* individual_strategy_ = nullptr;
  ParameterVector model_;
  ModelSender sender_;
  std::vector<float> state_;
  Format format_;
  std::set<ClientId> counted_;
  strategies::ExactSum sum_;  ///< R^d; SumStrategy only
  strategies::ExactScalarSum weight_;
  std::vector<strategies::ExactScalarSum> scalars_;
  std::vector<strategies::ExactScalarSum> variant_weights_;  ///< by number; where some train a part
  struct Kept {
    SharedBytes bytes;  ///< fp32, aligned for float
    double weight = 0;
  };
  std::map<ClientId, Kept> kept_;  ///< IndividualStrategy only
  std::vector<std::uint64_t> packed_sum_;  ///< of masked updates
  RoundNumber round_{};
  bool unmasked_ = false;
  double squared_norm_ = 0;  ///< of those in the last sum opened: privacy::SumFigures, weighted by itself
  double unclipped_ = 0;  ///< of the sum at hand: privacy::SumFigures
  std::optional<SecureSumFigures> figures_;
  PipelinePrivacy privacy_;
  /// By the numbers of plan and compressor, made when the first such update comes: O(d) each.
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::unique_ptr<compression::Compressor>> decoders_;
  ParameterVector shifted_;        ///< R^d, where the strategy needs the base of an update
  ParameterVector decoded_;        ///< R^d, once an update was not fp32 aligned for float
  ParameterVector part_;           ///< R^d', of devices that train a part of the model
};

/// What ApplyStrategy asks for, and its answer. `unmasked` is called between the two halves of a secure
/// round, when the sum is in the open and the strategy has not moved the model.
StrategyApplied apply_strategy(UpdatePipeline& pipeline, const ApplyStrategy& action,
                               const std::function<void()>& unmasked = nullptr);

}  // namespace covey::server
