#pragma once

#include <array>
#include <covey/digest.hpp>
#include <covey/messages.hpp>
#include <cstddef>
#include <cstdint>
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
          .max_update_norm = 12.5,
          .secure_aggregation = {.threat_model = ThreatModel::kMaliciousServer,
                                 .cipher = MaskCipher::kChaCha20,
                                 .complete_graph = true,
                                 .bits = 20,
                                 .clip = 0.25,
                                 .max_weight = 600,
                                 .rotation = true,
                                 .max_devices = 1000,
                                 .dropout = 0.3,
                                 .corruption = 0.125,
                                 .subsample = 0.25},
          .privacy = {.clip = ClipKind::kAdaptive,
                      .clip_norm = 0.75,
                      .noise = DeviceNoise::kSkellam,
                      .noise_stddev = 0.0625}};
}

// ---- secure aggregation

/// first, first + 1, ...: no two fields of a sample hold the same bytes.
template <std::size_t N>
std::array<std::uint8_t, N> counting(std::uint8_t first) {
  std::array<std::uint8_t, N> bytes{};
  for (std::uint8_t& byte : bytes) byte = first++;
  return bytes;
}

inline std::vector<std::byte> secret_bytes(std::size_t size, std::uint8_t first) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(first++);
  return bytes;
}

inline AggregationRound sum_round() {
  return {.run = kRun, .round = kRound, .id = {counting<16>(0xa0)}};
}

/// As a device sends it: without its own number.
inline KeyAdvertisement advertisement(std::uint8_t first) {
  return {.client = {},
          .cipher_key = counting<32>(first),
          .mask_key = counting<32>(static_cast<std::uint8_t>(first + 32)),
          .signature = counting<64>(static_cast<std::uint8_t>(first + 64)),
          .identity = {.client = ClientId{1ull << 60},
                       .key = counting<32>(static_cast<std::uint8_t>(first + 128)),
                       .signature = secret_bytes(72, first)}};
}

inline Neighbour neighbour(std::uint32_t position, std::uint64_t client) {
  Neighbour one{.position = position, .keys = advertisement(static_cast<std::uint8_t>(client))};
  one.keys.client = ClientId{client};
  return one;
}

inline std::vector<EncryptedShares> encrypted_shares() {
  return {{.peer = ClientId{3},
           .ciphertext = secret_bytes(96, 1),
           .self_seed = counting<16>(2),
           .mask_key = counting<16>(3)},
          {.peer = ClientId{1ull << 63},
           .ciphertext = secret_bytes(256, 4),
           .self_seed = counting<16>(5),
           .mask_key = counting<16>(6)}};
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
               .compressors = {"fp32", "top-k", "int8"},
               .device_class = "phone",
               .held_model = kBlob}},
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
      AdvertiseKeys{sum_round(), advertisement(9)},
      ShareKeys{sum_round(), kBlob, counting<16>(7), encrypted_shares()},
      ConfirmSurvivors{sum_round(), kBlob, counting<64>(8)},
      Unmask{.round = sum_round(),
             .shares = {{ClientId{3}, true, secret_bytes(33, 1)},
                        {ClientId{1ull << 63}, false, secret_bytes(256, 2)}},
             .unreadable = {ClientId{5}, ClientId{1ull << 62}}},
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
                 .report_within = std::chrono::minutes(10),
                 .aggregation = {counting<16>(0xb0)},
                 .delta = ModelDelta{kBlob, sha256(bytes_of("a difference").span()), 123456, "xor-zstd"}},
      BlobChunk{kBlob, 1ull << 33, bytes_of("payload bytes")},
      BlobMissing{kBlob},
      UploadGrant{kBlob, 1ull << 34, 1 << 20},
      ProgressReply{kRun, kRound, false},
      ReportAccepted{kRun, kRound, kRetry},
      ReportRejected{kRun, kRound, RejectReason::kServerFailed, "the disk is full", kRetry},
      RoundOver{kRun, kRound, kRetry},
      StatusReply{R"({"round":12,"state":"selecting"})"},
      NeighbourKeys{.round = sum_round(),
                    .devices = 3,
                    .position = 1,
                    .degree = 2,
                    .threshold = 2,
                    .neighbours = {neighbour(0, 11), neighbour(2, 77)},
                    .directory = {kBlob, sha256({}), kBlob}},
      PeerShares{sum_round(), encrypted_shares()},
      SurvivorSet{sum_round(), secret_bytes(3, 0xf1)},
      SurvivorConfirmations{sum_round(),
                            {{ClientId{11}, counting<64>(1)}, {ClientId{77}, counting<64>(2)}}},
  };
}

}  // namespace covey::samples
