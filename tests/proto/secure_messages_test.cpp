#include <catch2/catch.hpp>
#include <covey/proto/codec.hpp>
#include <limits>

#include "sample_messages.hpp"
#include "wire_bytes.hpp"

using namespace covey;

namespace {

template <typename Message>
std::string refusal_of(const Message& message) {
  const auto encoded = proto::encode(message);
  if constexpr (std::is_same_v<Message, ClientMessage>) {
    const auto decoded = proto::decode_client_message(encoded.header, {});
    return decoded.ok() ? "accepted" : decoded.error().message;
  } else {
    const auto decoded = proto::decode_server_message(encoded.header, {});
    return decoded.ok() ? "accepted" : decoded.error().message;
  }
}

std::string client_refusal(const wire::Bytes& header) {
  const auto decoded = proto::decode_client_message(header, {});
  return decoded.ok() ? "accepted" : decoded.error().message;
}

std::string server_refusal(const wire::Bytes& header) {
  const auto decoded = proto::decode_server_message(header, {});
  return decoded.ok() ? "accepted" : decoded.error().message;
}

/// The field `round` of every message, and what may be wrong with its number.
wire::Bytes round_field(std::size_t id_bytes = 16) {
  return wire::nested(
      1, wire::join({wire::fixed64(1, 7), wire::varint(2, 1), wire::zeros(3, id_bytes)}));
}

template <typename Change>
std::string plan_refusal(Change change) {
  Assignment assignment;
  assignment.plan = samples::plan();
  change(assignment.plan);
  return refusal_of(ServerMessage(assignment));
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Numbers of the kinds in wire.proto's Envelope.
constexpr int kAdvertise = 25, kShare = 26, kConfirm = 27, kUnmask = 28;
constexpr int kNeighbours = 29, kSurvivors = 31, kConfirmations = 32;

}  // namespace

TEST_CASE("a plan and an assignment without privacy are as small as they were") {
  Assignment assignment;
  // Then the lengths of the plan and of what is around it have two bytes each.
  assignment.plan.strategy = std::string(128, 's');
  const auto plain = proto::encode(ServerMessage(assignment)).header.size();
  assignment.plan.secure_aggregation.rotation = true;
  // tag 1, length 1; threat model, cipher, graph, bits, rotation, max_devices 2 each; four doubles
  // of 9: 2 + 12 + 36 = 50.
  CHECK(proto::encode(ServerMessage(assignment)).header.size() == plain + 50);
  assignment.plan.secure_aggregation = {};
  assignment.plan.privacy.noise_stddev = 1;
  // tag 1, length 1; clip, noise 2 each; two doubles of 9: 24.
  CHECK(proto::encode(ServerMessage(assignment)).header.size() == plain + 24);
  assignment.plan.privacy = {};
  assignment.aggregation.bytes[0] = 1;
  CHECK(proto::encode(ServerMessage(assignment)).header.size() == plain + 18);
}

TEST_CASE("an advertisement without identity is two keys and the round") {
  AdvertiseKeys keys{samples::sum_round(), samples::advertisement(1)};
  keys.keys.signature = {};
  keys.keys.identity = {};
  const auto encoded = proto::encode(ClientMessage(keys));
  // Two keys of 34; the round: 9 + 6 + 18; three lengths and tags of 2 (the envelope's tag has 2).
  CHECK(encoded.header.size() == 68 + 33 + 2 + 2 + 3);
  CHECK(*proto::decode_client_message(encoded.header, {}) == ClientMessage(keys));
}

TEST_CASE("a device's number does not travel upward, and is refused if it does") {
  AdvertiseKeys keys{samples::sum_round(), samples::advertisement(1)};
  const ClientMessage without = keys;
  keys.keys.client = ClientId{4};
  CHECK(proto::encode(ClientMessage(keys)).header == proto::encode(without).header);
  const auto header = wire::nested(
      kAdvertise,
      wire::join({round_field(), wire::nested(2, wire::join({wire::varint(1, 4), wire::zeros(2, 32),
                                                             wire::zeros(3, 32)}))}));
  CHECK(client_refusal(header) ==
        "advertise_keys.keys.client: is for the server to say, not for a device");
}

TEST_CASE("what a message of secure aggregation leaves out is named") {
  CHECK(client_refusal(wire::nested(kAdvertise, {})) == "advertise_keys.round: missing");
  CHECK(client_refusal(wire::nested(kAdvertise, wire::nested(1, {}))) ==
        "advertise_keys.round.run: missing");
  CHECK(client_refusal(wire::nested(kAdvertise, round_field())) == "advertise_keys.keys: missing");
  CHECK(client_refusal(wire::nested(kShare, round_field())) == "share_keys.self_seed: missing");
  CHECK(client_refusal(wire::nested(kConfirm, round_field())) ==
        "confirm_survivors.survivors: missing");
  CHECK(client_refusal(wire::nested(kUnmask, {})) == "unmask.round: missing");
  CHECK(client_refusal(wire::nested(kUnmask, round_field())) == "accepted");
  CHECK(client_refusal(wire::nested(kUnmask, wire::join({round_field(), wire::nested(2, {})}))) ==
        "unmask.shares.owner: missing");
  CHECK(server_refusal(wire::nested(kNeighbours, round_field())) ==
        "neighbour_keys.devices: missing");
  CHECK(server_refusal(wire::nested(kSurvivors, round_field())) ==
        "survivor_set.survivors: missing");
  CHECK(server_refusal(
            wire::nested(kConfirmations, wire::join({round_field(), wire::nested(2, {})}))) ==
        "survivor_confirmations.confirmations.client: missing");
}

TEST_CASE("keys, signatures, commitments and round ids have exactly their length") {
  CHECK(client_refusal(wire::nested(kUnmask, round_field(15))) ==
        "unmask.round.id: 15 bytes, it must have 16");
  const auto keys = [](std::size_t cipher, std::size_t mask, std::size_t signature,
                       std::size_t identity) {
    return client_refusal(wire::nested(
        kAdvertise,
        wire::join(
            {round_field(),
             wire::nested(
                 2, wire::join(
                        {wire::zeros(2, cipher), wire::zeros(3, mask), wire::zeros(4, signature),
                         wire::nested(5, wire::join({wire::varint(1, 1), wire::zeros(2, identity),
                                                     wire::zeros(3, 64)}))}))})));
  };
  CHECK(keys(32, 32, 64, 32) == "accepted");
  CHECK(keys(31, 32, 64, 32) == "advertise_keys.keys.cipher_key: 31 bytes, it must have 32");
  CHECK(keys(32, 33, 64, 32) == "advertise_keys.keys.mask_key: 33 bytes, it must have 32");
  CHECK(keys(32, 32, 63, 32) == "advertise_keys.keys.signature: 63 bytes, it must have 64");
  CHECK(keys(32, 32, 64, 0) == "advertise_keys.keys.identity.key: 0 bytes, it must have 32");
  const auto shares = [](std::size_t own, std::size_t self_seed, std::size_t mask_key) {
    return client_refusal(wire::nested(
        kShare, wire::join({round_field(), wire::zeros(2, 32), wire::zeros(3, own),
                            wire::nested(4, wire::join({wire::varint(1, 1), wire::zeros(2, 8),
                                                        wire::zeros(3, self_seed),
                                                        wire::zeros(4, mask_key)}))})));
  };
  CHECK(shares(16, 16, 16) == "accepted");
  CHECK(shares(17, 16, 16) == "share_keys.own_share: 17 bytes, it must have 16");
  CHECK(shares(16, 15, 16) == "share_keys.shares.self_seed: 15 bytes, it must have 16");
  CHECK(shares(16, 16, 32) == "share_keys.shares.mask_key: 32 bytes, it must have 16");
  CHECK(client_refusal(wire::nested(
            kConfirm, wire::join({round_field(), wire::zeros(2, 32), wire::zeros(3, 65)}))) ==
        "confirm_survivors.signature: 65 bytes, it must have 64");
}

TEST_CASE("ciphertexts, shares, certificates and bitmaps are bounded") {
  const auto ciphertext = [](std::size_t bytes) {
    ShareKeys message{samples::sum_round(), {}, {}, {{ClientId{1}, {}, {}, {}}}};
    message.shares[0].ciphertext.resize(bytes);
    return refusal_of(ClientMessage(message));
  };
  CHECK(ciphertext(0) == "accepted");
  CHECK(ciphertext(256) == "accepted");
  CHECK(ciphertext(257) == "share_keys.shares.ciphertext: 257 bytes, at most 256 are allowed");

  Unmask unmask{samples::sum_round(), {{ClientId{1}, true, samples::secret_bytes(257, 0)}}, {}};
  CHECK(refusal_of(ClientMessage(unmask)) ==
        "unmask.shares.share: 257 bytes, at most 256 are allowed");

  AdvertiseKeys keys{samples::sum_round(), samples::advertisement(1)};
  keys.keys.identity.signature.resize(128);
  CHECK(refusal_of(ClientMessage(keys)) == "accepted");
  keys.keys.identity.signature.resize(129);
  CHECK(refusal_of(ClientMessage(keys)) ==
        "advertise_keys.keys.identity.signature: 129 bytes, at most 128 are allowed");
  keys.keys.identity.signature.clear();
  CHECK(refusal_of(ClientMessage(keys)) ==
        "advertise_keys.keys.identity.signature: must have at least 1 byte");

  SurvivorSet set{samples::sum_round(), samples::secret_bytes(16384, 1)};
  CHECK(refusal_of(ServerMessage(set)) == "accepted");
  set.survivors.resize(16385);
  CHECK(refusal_of(ServerMessage(set)) ==
        "survivor_set.survivors: 16385 bytes, at most 16384 are allowed");
}

TEST_CASE("lists of devices have at most 16384 items") {
  const std::string limit = ": 16385 items, at most 16384 are allowed";
  ShareKeys share{samples::sum_round(), {}, {}, {}};
  share.shares.resize(16384);
  CHECK(refusal_of(ClientMessage(share)) == "accepted");
  share.shares.resize(16385);
  CHECK(refusal_of(ClientMessage(share)) == "share_keys.shares" + limit);
  CHECK(refusal_of(ServerMessage(PeerShares{{}, share.shares})) == "peer_shares.shares" + limit);

  Unmask unmask{samples::sum_round(), std::vector<RevealedShare>(16385), {}};
  CHECK(refusal_of(ClientMessage(unmask)) == "unmask.shares" + limit);
  unmask = {samples::sum_round(), {}, std::vector<ClientId>(16385)};
  CHECK(refusal_of(ClientMessage(unmask)) == "unmask.unreadable" + limit);

  NeighbourKeys keys;
  keys.round = samples::sum_round();
  keys.directory.resize(16384, samples::kBlob);
  CHECK(refusal_of(ServerMessage(keys)) == "accepted");
  keys.directory.resize(16385);
  CHECK(refusal_of(ServerMessage(keys)) == "neighbour_keys.directory" + limit);
  keys.directory.clear();
  keys.neighbours.resize(16385);
  CHECK(refusal_of(ServerMessage(keys)) == "neighbour_keys.neighbours" + limit);

  SurvivorConfirmations confirmations{samples::sum_round(), {}};
  confirmations.confirmations.resize(16385);
  CHECK(refusal_of(ServerMessage(confirmations)) == "survivor_confirmations.confirmations" + limit);
}

TEST_CASE("a directory is a whole number of digests") {
  const auto directory = [](std::size_t bytes) {
    return server_refusal(wire::nested(
        kNeighbours, wire::join({round_field(), wire::varint(2, 3), wire::varint(3, 0),
                                 wire::varint(4, 2), wire::varint(5, 2), wire::zeros(7, bytes)})));
  };
  CHECK(directory(96) == "accepted");
  CHECK(directory(97) == "neighbour_keys.directory: 97 bytes, it must have 32 for each device");
}

TEST_CASE("the largest directory leaves room in a frame of 1 MiB") {
  // 16384 digests, and 600 neighbours with certificates: more than any graph of so many takes.
  NeighbourKeys keys;
  keys.round = samples::sum_round();
  keys.directory.assign(16384, samples::kBlob);
  keys.neighbours.assign(600, samples::neighbour(16000, 1ull << 63));
  CHECK(proto::encode(ServerMessage(keys)).header.size() < 1 << 20);
}

TEST_CASE("numbers of secure aggregation that no sum can use are refused by name") {
  const std::string at = "assignment.plan.secure_aggregation.";
  const auto refusal = [](auto change) {
    return plan_refusal([&](TrainingPlan& plan) { change(plan.secure_aggregation); });
  };
  CHECK(refusal([](auto&) {}) == "accepted");
  CHECK(refusal([](auto& sum) { sum.threat_model = static_cast<ThreatModel>(3); }) ==
        at + "threat_model: unknown value 3");
  CHECK(refusal([](auto& sum) { sum.cipher = static_cast<MaskCipher>(3); }) ==
        at + "cipher: unknown value 3");
  CHECK(refusal([](auto& sum) { sum.cipher = static_cast<MaskCipher>(0); }) ==
        at + "cipher: unknown value 0");
  CHECK(refusal([](auto& sum) { sum.bits = 1; }) == at + "bits: must be 2 to 24");
  CHECK(refusal([](auto& sum) { sum.bits = 25; }) == at + "bits: must be 2 to 24");
  for (const double clip : {0.0, -1.0, kNan, kInfinity}) {
    CHECK(refusal([&](auto& sum) { sum.clip = clip; }).find(at + "clip: ") == 0);
    CHECK(refusal([&](auto& sum) { sum.max_weight = clip; }).find(at + "max_weight: ") == 0);
  }
  CHECK(refusal([](auto& sum) { sum.max_devices = 0; }) == at + "max_devices: must be at least 1");
  CHECK(refusal([](auto& sum) { sum.dropout = 1; }) == at + "dropout: 1 is not in [0, 1)");
  CHECK(refusal([](auto& sum) { sum.dropout = -0.5; }) == at + "dropout: -0.5 is not in [0, 1)");
  CHECK(refusal([](auto& sum) { sum.corruption = kNan; }) ==
        at + "corruption: nan is not in [0, 1)");
}

TEST_CASE("numbers of differential privacy that no device can use are refused by name") {
  const std::string at = "assignment.plan.privacy.";
  const auto refusal = [](auto change) {
    return plan_refusal([&](TrainingPlan& plan) { change(plan.privacy); });
  };
  CHECK(refusal([](auto& plan) { plan.clip = static_cast<ClipKind>(4); }) ==
        at + "clip: unknown value 4");
  CHECK(refusal([](auto& plan) { plan.noise = static_cast<DeviceNoise>(4); }) ==
        at + "noise: unknown value 4");
  for (const double norm : {0.0, -1.0, kNan, kInfinity}) {
    CHECK(refusal([&](auto& plan) { plan.clip_norm = norm; }).find(at + "clip_norm: ") == 0);
  }
  for (const double noise : {-1.0, kNan, kInfinity}) {
    CHECK(refusal([&](auto& plan) { plan.noise_stddev = noise; }).find(at + "noise_stddev: ") == 0);
  }
  CHECK(refusal([](auto& plan) { plan.noise_stddev = 0; }) == "accepted");
}
