#pragma once

#include <covey/digest.hpp>
#include <covey/messages.hpp>
#include <cstddef>
#include <string>
#include <vector>

/// One message of every kind with every field away from its default: for round trips and as the
/// seed corpus of the fuzz targets.
namespace covey::samples {

inline SharedBytes bytes_of(std::string_view text) {
  const auto view = std::as_bytes(std::span(text.data(), text.size()));
  return SharedBytes(std::vector<std::byte>(view.begin(), view.end()));
}

inline const Digest kBlob = sha256(bytes_of("a blob").span());
inline constexpr RunId kRun{0xfedcba9876543210};
inline constexpr RoundNumber kRound{4000000000};
inline constexpr RetryWindow kRetry{std::chrono::milliseconds(1500), std::chrono::hours(30)};

/// Every kind of layer, in the order of their numbers, every field away from its default somewhere.
inline ModelSpec model() {
  using enum LayerKind;
  return {.input_shape = {28, 28, 1},
          .layers = {{.kind = kDense, .units = 62, .kernel = 6},
                     {.kind = kConv2d, .units = 32, .kernel = 5, .stride = 2},
                     {.kind = kMaxPool2d, .units = 3, .kernel = 2},
                     {.kind = kFlatten, .units = 4, .kernel = 5},
                     {.kind = kRelu, .units = 1, .kernel = 2},
                     {.kind = kDepthwiseConv2d, .kernel = 3, .padding = Padding::kValid},
                     {.kind = kAveragePool2d, .kernel = 2},
                     {.kind = kGlobalAveragePool},
                     {.kind = kEmbedding, .units = 8, .vocabulary = 258},
                     {.kind = kLstm, .units = 256, .peephole = true},
                     {.kind = kGru, .units = 16, .last_only = true},
                     {.kind = kBatchNorm},
                     {.kind = kGroupNorm, .groups = 8},
                     {.kind = kLayerNorm},
                     {.kind = kDropout, .rate = 0.5f},
                     {.kind = kGelu},
                     {.kind = kTanh},
                     {.kind = kSigmoid},
                     {.kind = kAdd, .back = 3}},
          .loss = Loss::kBinaryCrossEntropy,
          .target = Target::kInput,
          .initialisation = Initialisation::kGlorotUniform,
          .torchscript = sha256(bytes_of("a TorchScript file").span()).hex()};
}

inline TrainingPlan plan() {
  return {.strategy = "q-fedavg",
          .strategy_parameters = {{"q", 0.1}, {"lipschitz", 10.0}},
          .model = model(),
          .local_epochs = 5,
          .batch_size = 32,
          .learning_rate = 0.03f,
          .optimizer = {.kind = OptimizerKind::kAdamW,
                        .momentum = 0.5f,
                        .beta1 = 0.25f,
                        .beta2 = 0.75f,
                        .epsilon = 1e-5f,
                        .weight_decay = 0.125f,
                        .clip_norm = 3.5f},
          .seed = 0x0123456789abcdef,
          .accept_partial_work = true,
          .precision = "int8",
          .compressor = "top-k",
          .max_update_norm = 12.5};
}

inline std::vector<ClientMessage> client_messages() {
  return {
      Hello{2, 7, "covey/9.9.9"},
      CheckIn{{.num_examples = 1234567890123,
               .charging = false,
               .metered = true,
               .thermal = ThermalState::kHot,
               .free_memory_bytes = 8ull << 30,
               .agent_version = "covey/9.9.9 Grüße",
               .precisions = {"fp32", "int8"},
               .compressors = {"fp32", "top-k", "int8"}}},
      BlobRequest{kBlob, 1ull << 40, 262144},
      BlobChunk{kBlob, 1ull << 33, bytes_of("payload bytes")},
      Progress{kRun, kRound, 17, 400},
      Report{.run = kRun,
             .round = kRound,
             .blob = kBlob,
             .blob_size = 6653480,
             .weight = 600.25,
             .scalars = {1.5, -2.25, 1e300},
             .num_examples = 600,
             .steps = 300,
             .train_loss = 0.125,
             .train_seconds = 12.75},
      Decline{kRun, kRound, "battery below 20%"},
      StatusRequest{},
  };
}

inline std::vector<ServerMessage> server_messages() {
  return {
      Welcome{3, 65536, std::chrono::seconds(10)},
      Refusal{RefusalReason::kShuttingDown, "the server is stopping"},
      Waiting{},
      RetryLater{kRetry, "enough devices are waiting"},
      Assignment{.run = kRun,
                 .round = kRound,
                 .plan = plan(),
                 .model = kBlob,
                 .model_size = 6653480,
                 .report_within = std::chrono::minutes(10)},
      BlobChunk{kBlob, 1ull << 33, bytes_of("payload bytes")},
      BlobMissing{kBlob},
      UploadGrant{kBlob, 1ull << 34, 1 << 20},
      ProgressReply{kRun, kRound, false},
      ReportAccepted{kRun, kRound, kRetry},
      ReportRejected{kRun, kRound, RejectReason::kServerFailed, "the disk is full", kRetry},
      RoundOver{kRun, kRound, kRetry},
      StatusReply{R"({"round":12,"state":"selecting"})"},
  };
}

}  // namespace covey::samples
