#include <catch2/catch.hpp>
#include <covey/proto/codec.hpp>
#include <limits>

#include "sample_messages.hpp"

using namespace covey;

namespace {

Result<ClientMessage> round_trip(const ClientMessage& message) {
  auto encoded = proto::encode(message);
  return proto::decode_client_message(encoded.header, encoded.payload);
}

Result<ServerMessage> round_trip(const ServerMessage& message) {
  auto encoded = proto::encode(message);
  return proto::decode_server_message(encoded.header, encoded.payload);
}

template <typename Message>
std::string refusal_of(const Message& message) {
  const auto decoded = round_trip(message);
  return decoded.ok() ? "accepted" : decoded.error().message;
}

ClientMessage check_in_with(DeviceConditions conditions) { return CheckIn{std::move(conditions)}; }

Assignment assignment_with_layers(std::size_t layers) {
  Assignment assignment;
  assignment.plan.model.layers.assign(layers, {LayerKind::kDense, 10, 0});
  return assignment;
}

}  // namespace

TEST_CASE("every message of a device survives the wire with every field set") {
  const auto messages = samples::client_messages();
  REQUIRE(messages.size() == std::variant_size_v<ClientMessage>);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    CAPTURE(i);
    REQUIRE(messages[i].index() == i);  // each kind once
    const auto decoded = round_trip(messages[i]);
    REQUIRE(decoded.ok());
    CHECK(*decoded == messages[i]);
  }
}

TEST_CASE("every message of the server survives the wire with every field set") {
  const auto messages = samples::server_messages();
  REQUIRE(messages.size() == std::variant_size_v<ServerMessage>);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    CAPTURE(i);
    REQUIRE(messages[i].index() == i);
    const auto decoded = round_trip(messages[i]);
    REQUIRE(decoded.ok());
    CHECK(*decoded == messages[i]);
  }
}

TEST_CASE("zeros survive the wire and are told apart from missing fields") {
  const ClientMessage report = Report{};
  CHECK(*round_trip(report) == report);
  DeviceConditions conditions;
  conditions.charging = false;
  CHECK(*round_trip(check_in_with(conditions)) == check_in_with(conditions));
  const ServerMessage assignment = Assignment{};
  CHECK(*round_trip(assignment) == assignment);
}

TEST_CASE("numbers survive the wire at the ends of their range") {
  constexpr auto k64 = std::numeric_limits<std::uint64_t>::max();
  constexpr auto k32 = std::numeric_limits<std::uint32_t>::max();
  const ClientMessage progress = Progress{RunId{k64}, RoundNumber{k32}, k32, k32};
  CHECK(*round_trip(progress) == progress);
  const ServerMessage grant = UploadGrant{samples::kBlob, k64, k32};
  CHECK(*round_trip(grant) == grant);
}

TEST_CASE("doubles that are not finite pass the codec, the coordinator judges them") {
  Report report;
  report.weight = std::numeric_limits<double>::quiet_NaN();
  report.train_loss = -std::numeric_limits<double>::infinity();
  const auto decoded = round_trip(ClientMessage(report));
  REQUIRE(decoded.ok());
  CHECK(std::isnan(std::get<Report>(*decoded).weight));
  CHECK(std::get<Report>(*decoded).train_loss == -std::numeric_limits<double>::infinity());
}

TEST_CASE("a chunk's payload is handed on as the same memory, not copied") {
  const auto payload = samples::bytes_of("0123456789");
  auto encoded = proto::encode(ClientMessage(BlobChunk{samples::kBlob, 0, payload}));
  CHECK(encoded.payload.data() == payload.data());
  const auto decoded = proto::decode_client_message(encoded.header, encoded.payload);
  REQUIRE(decoded.ok());
  CHECK(std::get<BlobChunk>(*decoded).payload.data() == payload.data());
}

TEST_CASE("the header of a chunk is small beside its payload") {
  // Envelope 2 + digest 34 + offset 6 = 42 bytes for an offset of 2^33.
  const auto encoded = proto::encode(samples::client_messages()[3]);
  CHECK(encoded.header.size() == 42);
}

TEST_CASE("strings up to 4 KiB are accepted and longer ones are cut by the sender") {
  Decline decline{RunId{1}, RoundNumber{1}, std::string(4096, 'x')};
  CHECK(*round_trip(ClientMessage(decline)) == ClientMessage(decline));
  const std::string limit = decline.reason;
  decline.reason += 'x';
  const auto cut = round_trip(ClientMessage(decline));
  REQUIRE(cut.ok());
  CHECK(std::get<Decline>(*cut).reason == limit);
}

TEST_CASE("free text is cut between characters and bytes that are not UTF-8 are replaced") {
  // 4095 bytes and a character of two: the character does not fit.
  Decline decline{RunId{1}, RoundNumber{1}, std::string(4095, 'x') + "é"};
  CHECK(std::get<Decline>(*round_trip(ClientMessage(decline))).reason == std::string(4095, 'x'));
  // A stray byte, an overlong '/', a surrogate half, a cut character; between them valid ones.
  decline.reason = "a\xff é\xc0\xaf €\xed\xa0\x80 \xf0\x9f\x90\xa6\xe2\x82";
  CHECK(std::get<Decline>(*round_trip(ClientMessage(decline))).reason ==
        "a? é?? €??? \xf0\x9f\x90\xa6??");
}

TEST_CASE("lists of 1024 items are accepted, longer ones refused by name") {
  DeviceConditions conditions;
  conditions.precisions.assign(1024, "fp32");
  CHECK(refusal_of(check_in_with(conditions)) == "accepted");
  conditions.precisions.emplace_back("fp32");
  CHECK(refusal_of(check_in_with(conditions)) ==
        "check_in.conditions.precisions: 1025 items, at most 1024 are allowed");

  Report report;
  report.scalars.assign(1025, 1.0);
  CHECK(refusal_of(ClientMessage(report)) ==
        "report.scalars: 1025 items, at most 1024 are allowed");

  Assignment assignment;
  assignment.plan.model.input_shape.assign(1025, 1);
  CHECK(refusal_of(ServerMessage(assignment)) ==
        "assignment.plan.model.input_shape: 1025 items, at most 1024 are allowed");
  assignment = {};
  assignment.plan.strategy_parameters.assign(1025, {"q", 1.0});
  CHECK(refusal_of(ServerMessage(assignment)) ==
        "assignment.plan.strategy_parameters: 1025 items, at most 1024 are allowed");
}

TEST_CASE("a model of 256 layers is accepted, a deeper one refused by name") {
  CHECK(refusal_of(ServerMessage(assignment_with_layers(256))) == "accepted");
  CHECK(refusal_of(ServerMessage(assignment_with_layers(257))) ==
        "assignment.plan.model.layers: 257 items, at most 256 are allowed");
}

TEST_CASE("durations are accepted within ten years in either direction") {
  constexpr Duration kTenYears = std::chrono::hours(10 * 365 * 24);
  const auto with = [](Duration d) { return ServerMessage(Welcome{1, 1024, d}); };
  CHECK(refusal_of(with(kTenYears)) == "accepted");
  CHECK(refusal_of(with(-kTenYears)) == "accepted");
  const std::string text = "welcome.heartbeat_interval_us: ";
  CHECK(refusal_of(with(kTenYears + Duration(1))) ==
        text + "315360000000001 microseconds is more than ten years");
  CHECK(refusal_of(with(Duration::min())) ==
        text + "-9223372036854775808 microseconds is more than ten years");
}

TEST_CASE("a retry window that ends before it starts is refused") {
  const RetryWindow window{std::chrono::seconds(2), std::chrono::seconds(1)};
  CHECK(refusal_of(ServerMessage(RoundOver{RunId{1}, RoundNumber{1}, window})) ==
        "round_over.retry.delay_max_us: smaller than delay_min_us");
}

TEST_CASE("values of enums that this version does not know are refused by name") {
  CHECK(refusal_of(ServerMessage(Refusal{static_cast<RefusalReason>(7), ""})) ==
        "refusal.reason: unknown value 7");
  CHECK(refusal_of(ServerMessage(Refusal{static_cast<RefusalReason>(0), ""})) ==
        "refusal.reason: unknown value 0");
  ReportRejected rejected;
  rejected.reason = static_cast<RejectReason>(9);
  CHECK(refusal_of(ServerMessage(rejected)) == "report_rejected.reason: unknown value 9");
  DeviceConditions conditions;
  conditions.thermal = static_cast<ThermalState>(3);
  CHECK(refusal_of(check_in_with(conditions)) == "check_in.conditions.thermal: unknown value 3");
  auto assignment = assignment_with_layers(2);
  assignment.plan.model.layers[1].kind = static_cast<LayerKind>(20);
  CHECK(refusal_of(ServerMessage(assignment)) ==
        "assignment.plan.model.layers.kind: unknown value 20");
}

TEST_CASE("enums of a plan that this version does not know are refused by name") {
  const auto refusal = [](auto change) {
    Assignment assignment = assignment_with_layers(1);
    change(assignment.plan);
    return refusal_of(ServerMessage(assignment));
  };
  CHECK(refusal([](auto& plan) { plan.model.layers[0].kind = static_cast<LayerKind>(0); }) ==
        "assignment.plan.model.layers.kind: unknown value 0");
  CHECK(refusal([](auto& plan) { plan.model.layers[0].padding = static_cast<Padding>(2); }) ==
        "assignment.plan.model.layers.padding: unknown value 2");
  CHECK(refusal([](auto& plan) { plan.model.loss = static_cast<Loss>(4); }) ==
        "assignment.plan.model.loss: unknown value 4");
  CHECK(refusal([](auto& plan) { plan.model.target = static_cast<Target>(3); }) ==
        "assignment.plan.model.target: unknown value 3");
  CHECK(refusal([](auto& plan) { plan.model.initialisation = static_cast<Initialisation>(6); }) ==
        "assignment.plan.model.initialisation: unknown value 6");
  CHECK(refusal([](auto& plan) { plan.optimizer.kind = static_cast<OptimizerKind>(6); }) ==
        "assignment.plan.optimizer.kind: unknown value 6");
  CHECK(refusal([](auto& plan) { plan.optimizer.kind = static_cast<OptimizerKind>(0); }) ==
        "assignment.plan.optimizer.kind: unknown value 0");
}

TEST_CASE("numbers of a plan that no training can use are refused by name") {
  const auto refusal = [](auto change) {
    Assignment assignment = assignment_with_layers(1);
    change(assignment.plan);
    return refusal_of(ServerMessage(assignment));
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  CHECK(refusal([](auto& plan) { plan.model.layers[0].rate = 1; }) ==
        "assignment.plan.model.layers.rate: 1 is not in [0, 1)");
  CHECK(refusal([](auto& plan) { plan.optimizer.momentum = 1; }) ==
        "assignment.plan.optimizer.momentum: 1 is not in [0, 1)");
  CHECK(refusal([](auto& plan) { plan.optimizer.beta1 = -0.5f; }) ==
        "assignment.plan.optimizer.beta1: -0.5 is not in [0, 1)");
  CHECK(refusal([](auto& plan) { plan.optimizer.beta2 = kNan; }) ==
        "assignment.plan.optimizer.beta2: nan is not in [0, 1)");
  CHECK_THAT(refusal([](auto& plan) { plan.optimizer.epsilon = 0; }),
             Catch::StartsWith("assignment.plan.optimizer.epsilon: 0 is not in"));
  CHECK_THAT(refusal([](auto& plan) { plan.optimizer.weight_decay = kNan; }),
             Catch::StartsWith("assignment.plan.optimizer.weight_decay: nan is not in"));
  CHECK_THAT(refusal([](auto& plan) { plan.optimizer.clip_norm = -1; }),
             Catch::StartsWith("assignment.plan.optimizer.clip_norm: -1 is not in"));
}

TEST_CASE("a TorchScript file is named by nothing or by 64 lower-case hexadecimal digits") {
  const auto refusal = [](const std::string& name) {
    Assignment assignment;
    assignment.plan.model.torchscript = name;
    return refusal_of(ServerMessage(assignment));
  };
  CHECK(refusal("") == "accepted");
  CHECK(refusal(std::string(64, 'a')) == "accepted");
  for (const std::string& name : {std::string(64, 'A'), std::string(63, 'a'), std::string(65, 'a'),
                                  "../" + std::string(61, 'a')}) {
    CHECK(
        refusal(name) ==
        "assignment.plan.model.torchscript: not the 64 lower-case hexadecimal digits of a SHA-256");
  }
}

TEST_CASE("requests and versions that make no sense are refused") {
  CHECK(refusal_of(ClientMessage(BlobRequest{samples::kBlob, 0, 0})) ==
        "blob_request.length: must be at least 1");
  CHECK(refusal_of(ClientMessage(Hello{2, 1, ""})) ==
        "hello.version_max: smaller than version_min");
  CHECK(refusal_of(ServerMessage(Welcome{1, 0, {}})) ==
        "welcome.max_chunk_bytes: must be at least 1");
}

TEST_CASE("a status larger than 256 KiB arrives as a document that says so") {
  const StatusReply fits{"\"" + std::string(256 * 1024 - 2, 'x') + "\""};
  CHECK(*round_trip(ServerMessage(fits)) == ServerMessage(fits));
  const auto decoded = round_trip(ServerMessage(StatusReply{fits.json + " "}));
  REQUIRE(decoded.ok());
  CHECK(std::get<StatusReply>(*decoded).json ==
        R"({"error":"the status is larger than the 256 KiB a reply can carry"})");
}

TEST_CASE("a payload belongs to chunks alone, and a chunk is never empty") {
  const auto payload = samples::bytes_of("x");
  for (const auto& message : samples::client_messages()) {
    if (std::holds_alternative<BlobChunk>(message)) continue;
    const auto decoded = proto::decode_client_message(proto::encode(message).header, payload);
    REQUIRE_FALSE(decoded.ok());
    CHECK(decoded.error().message.find("has a payload of 1 bytes") != std::string::npos);
  }
  CHECK(refusal_of(ServerMessage(BlobChunk{samples::kBlob, 0, {}})) ==
        "blob_chunk.payload: missing");
  constexpr auto kEnd = std::numeric_limits<std::uint64_t>::max();
  CHECK(refusal_of(ClientMessage(BlobChunk{samples::kBlob, kEnd, payload})) ==
        "blob_chunk.offset: 1 bytes from there on is past any blob");
}

TEST_CASE("a message of the other direction is refused by its kind") {
  for (const auto& message : samples::server_messages()) {
    if (std::holds_alternative<BlobChunk>(message)) continue;
    const auto decoded = proto::decode_client_message(proto::encode(message).header, {});
    REQUIRE_FALSE(decoded.ok());
    CHECK(decoded.error().code == ErrorCode::kMalformed);
    CHECK(decoded.error().message.find("is not for a device to send") != std::string::npos);
  }
  const auto hello = proto::encode(ClientMessage(Hello{}));
  CHECK(proto::decode_server_message(hello.header, {}).error().message ==
        "envelope.kind: hello is not for a server to send");
}
