#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/model_spec.hpp>
#include <covey/optimizer.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/secure_messages.hpp>
#include <covey/time.hpp>

/// The protocol's messages as plain values. `proto/codec` turns them into bytes; the simulator hands
/// them over as they are (or through the codec, by choice). One device's conversation:
///
///   device                                server
///   Hello(versions)                  ->
///                                    <-   Welcome(version) | Refusal(reason), then the end
///   CheckIn(conditions)              ->
///                                    <-   Waiting | RetryLater(window)
///                                    <-   Assignment(plan, model reference)       selected
///   BlobRequest(model, offset)       ->                                           0..n times
///                                    <-   BlobChunk | BlobMissing
///   Progress(steps)                  ->                                           heartbeat
///                                    <-   ProgressReply(wanted)
///   Report(update's hash, weight)    ->                                           metadata first
///                                    <-   UploadGrant(offset, window)             when there is room
///   BlobChunk(update, offset)        ->                                           0..n times
///                                    <-   UploadGrant(offset, window)
///                                    <-   ReportAccepted | ReportRejected(reason), retry window
///   CheckIn ...
///
/// Under secure aggregation (plan.secure_aggregation) the report is masked, and this stands around it:
///
///   AdvertiseKeys                    ->                                           when trained
///                                    <-   NeighbourKeys
///   ShareKeys                        ->
///                                    <-   PeerShares
///   Report, upload of the masked update as above, without an answer yet
///                                    <-   SurvivorSet
///   ConfirmSurvivors                 ->                                           malicious server
///                                    <-   SurvivorConfirmations                   only
///   Unmask                           ->
///                                    <-   ReportAccepted | RoundOver
///
/// At any time the server may send RoundOver (the task is void). A device whose connection drops
/// connects again, says Hello and CheckIn, and is given the same Assignment while its round lasts; it
/// then goes on at the byte where it stopped.
namespace covey {

inline constexpr std::uint32_t kProtocolVersion = 1;

enum class ThermalState : std::uint8_t { kNominal = 0, kWarm = 1, kHot = 2 };

/// What a device says of itself when it checks in.
struct DeviceConditions {
  std::uint64_t num_examples = 0;
  bool charging = true;
  bool metered = false;
  ThermalState thermal = ThermalState::kNominal;
  std::uint64_t free_memory_bytes = 0;       ///< 0: unknown
  std::string agent_version;                 ///< "covey/0.1.0"
  std::vector<std::string> precisions;       ///< it can train in: "fp32", "int8"
  std::vector<std::string> compressors;      ///< it can encode updates with: "fp32"
  std::string device_class;                  ///< what kind of device it is, by its own word; "": none
  /// The model it holds, as it was sent: a round's model may then come as a difference to it.
  std::optional<Digest> held_model;
  bool operator==(const DeviceConditions&) const = default;
};

/// When to come back: a uniformly random moment in [delay_min, delay_max] from now (pace steering).
struct RetryWindow {
  Duration delay_min{};
  Duration delay_max{};
  bool operator==(const RetryWindow&) const = default;
};

/// What a device is asked to do in a round. Data only.
struct TrainingPlan {
  std::string strategy;                                               ///< name in the registry
  std::vector<std::pair<std::string, double>> strategy_parameters;    ///< {"proximal-mu", 1.0}
  ModelSpec model;
  std::uint32_t local_epochs = 1;
  std::uint32_t batch_size = 10;     ///< 0: all examples in one batch
  float learning_rate = 0.1f;        ///< of this round, after the schedule
  OptimizerSpec optimizer;
  std::uint64_t seed = 0;            ///< of the run; training draws from (seed, kTraining, round, client)
  bool accept_partial_work = false;  ///< a device short of time may report after fewer epochs
  std::string precision = "fp32";    ///< fp32 | bf16 | qat-int8 | int8; also how the model is sent
  std::string compressor = "fp32";   ///< how updates are sent: a CompressorSpec in text
  double max_update_norm = 0;        ///< updates with a larger l2 norm are rejected; 0: no limit
  SecureAggregationPlan secure_aggregation = {};
  PrivacyPlan privacy = {};
  bool operator==(const TrainingPlan&) const = default;
};

// ---- device to server

struct Hello {
  std::uint32_t version_min = kProtocolVersion;
  std::uint32_t version_max = kProtocolVersion;
  std::string agent_version;
  bool operator==(const Hello&) const = default;
};

struct CheckIn {
  DeviceConditions conditions;
  bool operator==(const CheckIn&) const = default;
};

/// Asks for bytes [offset, offset + length) of a blob, answered by one BlobChunk (which may be shorter,
/// never empty) or BlobMissing. A device keeps at most kMaxOutstandingRequests unanswered, which is
/// what bounds the server's queue for a slow reader.
struct BlobRequest {
  Digest blob;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool operator==(const BlobRequest&) const = default;
};
inline constexpr std::uint32_t kMaxOutstandingRequests = 4;

/// Heartbeat while a device works on a task.
struct Progress {
  RunId run{};
  RoundNumber round{};
  std::uint32_t steps_done = 0;
  std::uint32_t steps_total = 0;
  bool operator==(const Progress&) const = default;
};

/// Announces a finished update; its bytes follow when the server grants them. Sending it again (after
/// a reconnect, or because an answer was lost) is harmless: it is counted once per (run, round, client).
struct Report {
  RunId run{};
  RoundNumber round{};
  Digest blob;                         ///< of the encoded update
  std::uint64_t blob_size = 0;         ///< bytes
  double weight = 0;                   ///< the update enters the sum times this; finite, >= 0
  std::vector<double> scalars;         ///< the strategy's further summands (q-FedAvg: h_k)
  std::uint64_t num_examples = 0;
  std::uint32_t steps = 0;             ///< local optimiser steps taken
  double train_loss = 0;               ///< mean over the steps
  double train_seconds = 0;            ///< wall (or virtual) time of local training
  bool operator==(const Report&) const = default;
};

/// The device gives the task up (training failed, conditions changed).
struct Decline {
  RunId run{};
  RoundNumber round{};
  std::string reason;
  /// It revealed shares in a sum of this round already, and keeps out of a second one.
  bool revealed = false;
  bool operator==(const Decline&) const = default;
};

/// Operators only (certificate with the admin role).
struct StatusRequest {
  bool operator==(const StatusRequest&) const = default;
};

// ---- server to device

struct Welcome {
  std::uint32_t version = kProtocolVersion;
  std::uint32_t max_chunk_bytes = 256 * 1024;
  Duration heartbeat_interval{};             ///< a working device sends Progress this often
  bool operator==(const Welcome&) const = default;
};

enum class RefusalReason : std::uint8_t {
  kVersion = 1,      ///< no common protocol version
  kRevoked = 2,
  kProtocol = 3,     ///< a message that makes no sense here, or does not parse
  kNotAuthorised = 4,
  kShuttingDown = 5,
  kRunFinished = 6,
};

/// The last message on a connection.
struct Refusal {
  RefusalReason reason = RefusalReason::kProtocol;
  std::string text;
  bool operator==(const Refusal&) const = default;
};

/// Checked in; stay connected, an Assignment may come.
struct Waiting {
  bool operator==(const Waiting&) const = default;
};

struct RetryLater {
  RetryWindow window;
  std::string reason;
  bool operator==(const RetryLater&) const = default;
};

/// A round's model as a difference to one that the device holds: fewer bytes to fetch. It is applied only
/// if the result has the hash of the assignment's model; the device may fetch that whole instead.
struct ModelDelta {
  Digest base;               ///< DeviceConditions::held_model
  Digest blob;               ///< of the encoded difference, fetched like any blob
  std::uint64_t size = 0;    ///< bytes of it
  std::string encoding;      ///< how it is encoded (compression/model_delta.hpp)
  bool operator==(const ModelDelta&) const = default;
};

struct Assignment {
  RunId run{};
  RoundNumber round{};
  TrainingPlan plan;
  Digest model;                 ///< parameters at the round's start, encoded as the precision says
  std::uint64_t model_size = 0; ///< bytes
  Duration report_within{};     ///< until the round's deadline
  AggregationId aggregation = {};  ///< of this attempt at the round; only with secure aggregation
  std::optional<ModelDelta> delta = std::nullopt;  ///< where the device holds a model that it can start from
  bool operator==(const Assignment&) const = default;
};

/// Both directions. `payload` is a slice of the blob, shared and not copied.
struct BlobChunk {
  Digest blob;
  std::uint64_t offset = 0;
  SharedBytes payload;
};
bool operator==(const BlobChunk& a, const BlobChunk& b);

struct BlobMissing {
  Digest blob;
  bool operator==(const BlobMissing&) const = default;
};

/// The server holds the update's bytes below `offset` and takes those in [offset, offset + window).
struct UploadGrant {
  Digest blob;
  std::uint64_t offset = 0;
  std::uint32_t window = 0;
  bool operator==(const UploadGrant&) const = default;
};

struct ProgressReply {
  RunId run{};
  RoundNumber round{};
  bool wanted = true;           ///< false: the round is over, stop
  bool operator==(const ProgressReply&) const = default;
};

struct ReportAccepted {
  RunId run{};
  RoundNumber round{};
  RetryWindow retry;
  bool operator==(const ReportAccepted&) const = default;
};

enum class RejectReason : std::uint8_t {
  kLate = 1,          ///< the round is closed, or was never this device's
  kForeign = 2,       ///< another run, or a device that was not selected
  kMalformed = 3,     ///< does not decode, or its hash is wrong
  kWrongSize = 4,
  kNotFinite = 5,
  kOverNorm = 6,
  kDuplicate = 7,     ///< this device's update was counted already, with other content
  kServerFailed = 8,  ///< the server could not store it (disk full); not the device's fault
};

struct ReportRejected {
  RunId run{};
  RoundNumber round{};
  RejectReason reason = RejectReason::kLate;
  std::string text;
  RetryWindow retry;
  bool operator==(const ReportRejected&) const = default;
};

/// The task is void: the round committed without this device or was abandoned.
struct RoundOver {
  RunId run{};
  RoundNumber round{};
  RetryWindow retry;
  bool operator==(const RoundOver&) const = default;
};

struct StatusReply {
  std::string json;
  bool operator==(const StatusReply&) const = default;
};

using ClientMessage =
    std::variant<Hello, CheckIn, BlobRequest, BlobChunk, Progress, Report, Decline, StatusRequest,
                 AdvertiseKeys, ShareKeys, ConfirmSurvivors, Unmask>;
using ServerMessage =
    std::variant<Welcome, Refusal, Waiting, RetryLater, Assignment, BlobChunk, BlobMissing,
                 UploadGrant, ProgressReply, ReportAccepted, ReportRejected, RoundOver, StatusReply,
                 NeighbourKeys, PeerShares, SurvivorSet, SurvivorConfirmations>;

/// SHA-256 over every field of the plan in a fixed encoding: equal on every machine.
Digest digest_of(const TrainingPlan& plan);

std::string_view to_string(RefusalReason reason);
std::string_view to_string(RejectReason reason);

}  // namespace covey
