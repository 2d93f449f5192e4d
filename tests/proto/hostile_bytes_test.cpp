#include <catch2/catch.hpp>
#include <covey/proto/codec.hpp>
#include <cstring>
#include <random>

#include "sample_messages.hpp"

using namespace covey;

namespace {

using Bytes = std::vector<std::byte>;

/// Bytes written out by hand in protobuf's encoding: what a newer or a broken peer may send.
Bytes bytes(std::initializer_list<int> values) {
  Bytes result;
  for (const int value : values) result.push_back(static_cast<std::byte>(value));
  return result;
}

std::string client_refusal(const Bytes& header) {
  const auto decoded = proto::decode_client_message(header, {});
  return decoded.ok() ? "accepted" : decoded.error().message;
}

/// Decodes as both directions; whatever is accepted must encode to something that decodes the same.
void decode_both(const Bytes& header, const SharedBytes& payload) {
  if (const auto message = proto::decode_client_message(header, payload)) {
    const auto once = proto::encode(*message);
    const auto again = proto::decode_client_message(once.header, once.payload);
    REQUIRE(again.ok());
    REQUIRE(proto::encode(*again).header == once.header);
  }
  if (const auto message = proto::decode_server_message(header, payload)) {
    const auto once = proto::encode(*message);
    const auto again = proto::decode_server_message(once.header, once.payload);
    REQUIRE(again.ok());
    REQUIRE(proto::encode(*again).header == once.header);
  }
}

std::vector<proto::Encoded> all_samples() {
  std::vector<proto::Encoded> all;
  for (const auto& message : samples::client_messages()) all.push_back(proto::encode(message));
  for (const auto& message : samples::server_messages()) all.push_back(proto::encode(message));
  return all;
}

}  // namespace

TEST_CASE("unknown fields of a newer peer are ignored") {
  // hello (field 1, length 9): version_min 1, version_max 2, agent_version "a", field 15 varint 7;
  // then an unknown field 100 of the envelope (tag 100 << 3 = 800 = a0 06) with value 5.
  const auto header = bytes({0x0a, 9, 0x08, 1, 0x10, 2, 0x1a, 1, 'a', 0x78, 7, 0xa0, 0x06, 5});
  const auto decoded = proto::decode_client_message(header, {});
  REQUIRE(decoded.ok());
  CHECK(*decoded == ClientMessage(Hello{1, 2, "a"}));
}

TEST_CASE("a kind of message that this version does not know is an error, not a guess") {
  // Envelope field 100, a message of 0 bytes: tag 100 << 3 | 2 = 802 = a2 06.
  CHECK(client_refusal(bytes({0xa2, 0x06, 0})) ==
        "envelope.kind: missing, or of a kind this version does not know");
  CHECK(client_refusal({}) == "envelope.kind: missing, or of a kind this version does not know");
}

TEST_CASE("missing fields are named with the message they belong to") {
  CHECK(client_refusal(bytes({0x0a, 0})) == "hello.version_min: missing");
  CHECK(client_refusal(bytes({0x12, 0})) == "check_in.conditions: missing");
  CHECK(client_refusal(bytes({0x12, 2, 0x0a, 0})) == "check_in.conditions.num_examples: missing");
  CHECK(client_refusal(bytes({0x2a, 0})) == "report.run: missing");
  // assignment (field 10) with run, round 1 and an empty plan.
  const auto assignment = bytes({0x52, 13, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 1, 0x1a, 0});
  CHECK(proto::decode_server_message(assignment, {}).error().message ==
        "assignment.plan.strategy: missing");
  // refusal (field 21: tag 170 = aa 01) without a reason.
  CHECK(proto::decode_server_message(bytes({0xaa, 0x01, 0}), {}).error().message ==
        "refusal.reason: missing");
}

TEST_CASE("what an older server leaves out of a plan reads as its default") {
  // Fields in wire order. plan: strategy "s"; a model of input shape [4] with a layer {kind 1,
  // units 2, kernel 0}; 1 epoch, batches of 2, learning rate 0.5, seed 3, no partial work,
  // precision "p", compressor "c", no norm limit: 51 bytes. assignment: run 7, round 1, plan,
  // model, size 8, 0 us.
  auto header = bytes({0x52, 102, 0x09, 7, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0x1a, 51});
  const auto plan =
      bytes({0x0a, 1,  's',                                                         //
             0x1a, 11, 0x0a, 1,    4,    0x12, 6,    0x08, 1,    0x10, 2, 0x18, 0,  //
             0x20, 1,  0x28, 2,    0x35, 0,    0,    0,    0x3f,                    //
             0x39, 3,  0,    0,    0,    0,    0,    0,    0,    0x40, 0,           //
             0x4a, 1,  'p',  0x52, 1,    'c',  0x59, 0,    0,    0,    0, 0,    0, 0, 0});
  REQUIRE(plan.size() == 51);
  header.insert(header.end(), plan.begin(), plan.end());
  for (const int byte : {0x22, 32}) header.push_back(static_cast<std::byte>(byte));
  header.resize(header.size() + 32);
  for (const int byte : {0x28, 8, 0x30, 0}) header.push_back(static_cast<std::byte>(byte));
  const auto decoded = proto::decode_server_message(header, {});
  if (!decoded.ok()) FAIL(decoded.error().message);
  const auto& read = std::get<Assignment>(*decoded).plan;
  CHECK(read.model == ModelSpec{.input_shape = {4}, .layers = {{LayerKind::kDense, 2, 0}}});
  CHECK(read.optimizer == OptimizerSpec{});
  CHECK(read.learning_rate == 0.5f);
}

TEST_CASE("digests of a wrong length are refused by name") {
  // blob_request (field 3) with a blob of 2 bytes.
  CHECK(client_refusal(bytes({0x1a, 4, 0x0a, 2, 1, 2})) ==
        "blob_request.blob: a digest of 2 bytes, it must have 32");
}

TEST_CASE("strings over 4 KiB and strings that are not UTF-8 are refused") {
  // hello with version_min 1, version_max 1 and an agent_version of 4097 = 0x81 0x20 bytes;
  // the whole message is 4 + 3 + 4097 = 4104 = 0x88 0x20 bytes.
  auto header = bytes({0x0a, 0x88, 0x20, 0x08, 1, 0x10, 1, 0x1a, 0x81, 0x20});
  header.resize(header.size() + 4097, std::byte{'x'});
  CHECK(client_refusal(header) == "hello.agent_version: 4097 bytes, at most 4096 are allowed");
  CHECK(client_refusal(bytes({0x0a, 7, 0x08, 1, 0x10, 1, 0x1a, 1, 0xff})) ==
        "hello.agent_version: not UTF-8");
}

TEST_CASE("a message cut anywhere is an error or a message, never a crash") {
  for (const auto& encoded : all_samples()) {
    for (std::size_t length = 0; length < encoded.header.size(); ++length) {
      // A copy of exactly this length, so that a sanitizer sees any read past it.
      const Bytes prefix(encoded.header.begin(),
                         encoded.header.begin() + static_cast<std::ptrdiff_t>(length));
      CAPTURE(length);
      CHECK_FALSE(proto::decode_client_message(prefix, encoded.payload).ok());
      CHECK_FALSE(proto::decode_server_message(prefix, encoded.payload).ok());
    }
  }
}

TEST_CASE("random bytes are an error or a message that survives another round trip") {
  constexpr std::uint64_t kSeed = 20240611;
  CAPTURE(kSeed);
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 100000; ++i) {
    Bytes header(random() % 64);
    for (auto& byte : header) byte = static_cast<std::byte>(random());
    decode_both(header, {});
  }
}

TEST_CASE("valid messages with random damage are an error or survive another round trip") {
  constexpr std::uint64_t kSeed = 20240612;
  CAPTURE(kSeed);
  std::mt19937_64 random(kSeed);
  const auto all = all_samples();
  for (int i = 0; i < 100000; ++i) {
    const auto& sample = all[random() % all.size()];
    Bytes header = sample.header;
    for (std::uint64_t damage = 1 + random() % 3; damage > 0 && !header.empty(); --damage) {
      header[random() % header.size()] = static_cast<std::byte>(random());
    }
    decode_both(header, sample.payload);
  }
}
