// Input: the threat model and graph, the number of devices, then deeds (secagg_steps.hpp). Drives
// both state machines of secure aggregation through them: devices and a server that follow the
// protocol, while messages are damaged, invented, repeated and lost, and devices leave. Nothing may
// crash; a server that refuses a message has not changed; and a sum that was unmasked is the sum of
// what was masked, unless somebody was told keys or sets that were not the real ones.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "../privacy/secagg_world.hpp"
#include "codec_round_trip.hpp"
#include "secagg_steps.hpp"

namespace {

using namespace covey;
using fuzz::SecAggDeed;
using Step = privacy::SecAggServer::Step;
namespace testing = privacy::testing;

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// The input's bytes, one after the other; zeros behind the end.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  bool empty() const { return at_ >= bytes_.size(); }
  std::uint8_t byte() { return empty() ? std::uint8_t{0} : bytes_[at_++]; }
  std::size_t two_bytes() {
    const std::size_t low = byte();
    return low | static_cast<std::size_t>(byte()) << 8;
  }
  std::span<const std::byte> bytes(std::size_t length) {
    const auto rest = std::as_bytes(bytes_.subspan(std::min(at_, bytes_.size())));
    const auto taken = rest.first(std::min(length, rest.size()));
    at_ += taken.size();
    return taken;
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

void damage(Reader& in, std::vector<std::byte>& header) {
  for (unsigned i = in.byte() % 4u; i > 0; --i) {
    const std::size_t at = in.two_bytes();
    const auto bits = static_cast<std::byte>(in.byte());
    if (!header.empty()) header[at % header.size()] ^= bits;
  }
}

/// The round of a message of secure aggregation; null of any other.
template <typename Message>
AggregationRound* round_of(Message& message) {
  return std::visit(
      [](auto& one) -> AggregationRound* {
        if constexpr (requires { one.round.id; }) {
          return &one.round;
        } else {
          return nullptr;
        }
      },
      message);
}

testing::World make_world(Reader& in) {
  const std::uint8_t kind = in.byte();
  testing::WorldOptions options;
  options.model = (kind & 1) != 0 ? ThreatModel::kMaliciousServer : ThreatModel::kHonestButCurious;
  options.cipher = (kind & 2) != 0 ? MaskCipher::kChaCha20 : MaskCipher::kAes128Ctr;
  // Alone with so few devices a dropout of 0 lets a graph stay complete with t = n.
  options.dropout = (kind & 4) != 0 ? 0.4 : 0.1;
  options.corruption = 0;
  options.devices = 2 + in.byte() % 4u;
  options.coordinates = 3;
  return testing::make_world(options);
}

/// One sum, and what was said in it.
class Conversation {
 public:
  explicit Conversation(Reader& in) : in_(in), world_(make_world(in)), clients_(world_.clients()) {}

  void run() {
    // Enough for every step of every device, with some left for mischief.
    for (int deeds = 0; deeds < 256 && !in_.empty(); ++deeds) {
      perform(static_cast<SecAggDeed>(in_.byte() % static_cast<unsigned>(SecAggDeed::kCount)));
    }
  }

 private:
  ClientId device() { return clients_[in_.byte() % clients_.size()]; }

  void perform(SecAggDeed deed) {
    switch (deed) {
      case SecAggDeed::kAnswer:
        return answer(device(), false);
      case SecAggDeed::kAllAnswer:
        for (const ClientId client : clients_) answer(client, false);
        return;
      case SecAggDeed::kCloseStep:
        if (!failed_ && world_.server->step() != Step::kUnmask) {
          failed_ = !world_.server->close_step().ok();
        }
        return;
      case SecAggDeed::kLeave:
        return world_.server->leave(device());
      case SecAggDeed::kDamageUp:
        return answer(device(), true);
      case SecAggDeed::kDamageDown:
        return damage_down(device());
      case SecAggDeed::kRawUp:
        return raw_up(device());
      case SecAggDeed::kRawDown:
        return raw_down(device());
      case SecAggDeed::kReplayUp:
        return replay_up(device());
      case SecAggDeed::kReplayDown:
        return replay_down(device());
      case SecAggDeed::kUnmask:
        return unmask();
      case SecAggDeed::kCount:
        return;
    }
  }

  /// What the server has for this device in the step at hand.
  std::optional<ServerMessage> from_server(ClientId client) {
    const privacy::SecAggServer& server = *world_.server;
    const auto as_message = [](auto message) -> std::optional<ServerMessage> {
      if (!message) return std::nullopt;
      return ServerMessage(*std::move(message));
    };
    switch (server.step()) {
      case Step::kAdvertise:
        return std::nullopt;
      case Step::kShare:
        return as_message(server.neighbour_keys(client));
      case Step::kMask:
        return as_message(server.peer_shares(client));
      case Step::kConfirm:
        return as_message(server.survivor_set(client));
      case Step::kUnmask: {
        auto confirmations = as_message(server.confirmations(client));
        return confirmations ? confirmations : as_message(server.survivor_set(client));
      }
    }
    return std::nullopt;
  }

  /// What a device makes of it: its answer, nothing where it refuses or only masks.
  std::optional<ClientMessage> tell(ClientId client, const ServerMessage& message) {
    auto& device = world_.device(client);
    if (const auto* keys = std::get_if<NeighbourKeys>(&message)) {
      return answer_of(device.take(*keys));
    }
    if (const auto* shares = std::get_if<PeerShares>(&message)) {
      const auto job = device.take(*shares);
      if (job.ok()) jobs_[client] = *job;
      return std::nullopt;
    }
    if (const auto* survivors = std::get_if<SurvivorSet>(&message)) {
      auto taken = device.take(*survivors);
      if (!taken.ok()) return std::nullopt;
      return std::visit([](auto& one) { return ClientMessage(std::move(one)); }, *taken);
    }
    if (const auto* confirmations = std::get_if<SurvivorConfirmations>(&message)) {
      return answer_of(device.take(*confirmations));
    }
    return std::nullopt;
  }

  template <typename Message>
  static std::optional<ClientMessage> answer_of(Result<Message> taken) {
    if (!taken.ok()) return std::nullopt;
    return ClientMessage(std::move(taken).value());
  }

  /// Of the device's real conversation with the server.
  std::optional<ClientMessage> answer_in_step(ClientId client) {
    if (world_.server->step() == Step::kAdvertise) {
      return ClientMessage(world_.device(client).advertise());
    }
    const auto message = from_server(client);
    if (!message) return std::nullopt;
    downward_.push_back(*message);
    auto answer = tell(client, over_the_wire(*message));
    if (world_.server->step() == Step::kMask) mask(client);
    return answer;
  }

  static ServerMessage over_the_wire(const ServerMessage& message) {
    const auto encoded = proto::encode(message);
    auto decoded = proto::decode_server_message(encoded.header, {});
    check(decoded.ok() && *decoded == message, "a real message does not survive the wire");
    return *std::move(decoded);
  }

  void answer(ClientId client, bool damaged) {
    const auto message = answer_in_step(client);
    if (!message) return;
    auto encoded = proto::encode(*message);
    if (damaged) damage(in_, encoded.header);
    const auto decoded = proto::decode_client_message(encoded.header, {});
    check(decoded.ok() || damaged, "a real answer does not survive the wire");
    if (!decoded.ok()) return;
    upward_.push_back(*decoded);
    hear(client, *decoded);
  }

  /// The masked input arrives, once, of a device that the server counts in.
  void mask(ClientId client) {
    const auto job = jobs_.find(client);
    const bool expected = world_.server->awaits(client) && !world_.masked.contains(client);
    if (job != jobs_.end() && expected) world_.add_masked(client, *job->second);
  }

  void hear(ClientId client, const ClientMessage& message) {
    privacy::SecAggServer& server = *world_.server;
    const Step step = server.step();
    const std::size_t awaited = server.awaited();
    const std::size_t faults = server.faults().size();
    const auto heard = std::visit(
        [&](const auto& one) -> Result<void> {
          if constexpr (requires { server.add(client, one); }) {
            return server.add(client, one);
          } else {
            return malformed("not a message of a secure sum");
          }
        },
        message);
    check(server.step() == step, "a message alone goes to the next step");
    if (!heard.ok()) {
      check(server.awaited() == awaited && server.faults().size() == faults,
            "a message was refused, and changed the server");
      check(!heard.error().message.empty(), "refused without a sentence");
      return;
    }
    const auto* keys = std::get_if<AdvertiseKeys>(&message);
    if (keys == nullptr) return;
    const KeyAdvertisement& real = world_.device(client).advertise().keys;
    poisoned_ |= keys->keys.cipher_key != real.cipher_key || keys->keys.mask_key != real.mask_key;
  }

  /// A device is told something else than what the server has for it.
  void mislead(ClientId client, const ServerMessage& message) {
    poisoned_ = true;
    if (const auto answer = tell(client, message)) hear(client, *answer);
    if (world_.server->step() == Step::kMask) mask(client);
  }

  void damage_down(ClientId client) {
    const auto message = from_server(client);
    if (!message) return;
    auto encoded = proto::encode(*message);
    damage(in_, encoded.header);
    const auto decoded = proto::decode_server_message(encoded.header, {});
    if (decoded.ok()) mislead(client, *decoded);
  }

  template <typename Message>
  std::optional<Message> invented(Result<Message> (*decode)(std::span<const std::byte>,
                                                            SharedBytes)) {
    const bool right_round = in_.byte() % 2 == 1;
    auto decoded = decode(in_.bytes(in_.two_bytes()), {});
    if (!decoded.ok()) return std::nullopt;
    AggregationRound* round = round_of(*decoded);
    if (right_round && round != nullptr) *round = world_.context.round;
    return *std::move(decoded);
  }

  void raw_up(ClientId client) {
    const auto message = invented<ClientMessage>(proto::decode_client_message);
    if (message) hear(client, *message);
  }
  void raw_down(ClientId client) {
    const auto message = invented<ServerMessage>(proto::decode_server_message);
    if (message) mislead(client, *message);
  }
  void replay_up(ClientId client) {
    const std::uint8_t which = in_.byte();
    if (!upward_.empty()) hear(client, ClientMessage(upward_[which % upward_.size()]));
  }
  void replay_down(ClientId client) {
    const std::uint8_t which = in_.byte();
    if (!downward_.empty()) mislead(client, ServerMessage(downward_[which % downward_.size()]));
  }

  void unmask() {
    const auto job = world_.server->unmask();
    check(job.ok() || !world_.server->can_unmask(),
          "every secret has its shares, and still no job");
    if (!job.ok()) return;
    auto sum = world_.masked_sum;
    std::optional<ClientId> culprit;
    const auto figures = job->run(world_.format, sum, 1, &culprit);
    if (!figures.ok()) {
      check(sum == world_.masked_sum, "a sum that cannot be unmasked was changed");
      check(culprit.has_value(), "nobody is named for a wrong secret");
      return;
    }
    check(poisoned_ || sum == world_.plain_sum, "the unmasked sum is not the sum");
  }

  Reader& in_;
  testing::World world_;
  std::vector<ClientId> clients_;
  std::map<ClientId, std::shared_ptr<const privacy::MaskJob>> jobs_;
  std::vector<ClientMessage> upward_;
  std::vector<ServerMessage> downward_;
  bool poisoned_ =
      false;             ///< a device or the server was told keys, shares or sets that are not real
  bool failed_ = false;  ///< too few were left; the sum is abandoned
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Reader in(std::span(data, size));
  Conversation(in).run();
  return 0;
}
