#include <fmt/format.h>

#include "codec_common.hpp"

/// The messages of secure aggregation. Which of them makes sense when, and whether a key, share or
/// signature is a good one, is for `privacy/` to judge; here only lengths and numbers are checked.
namespace covey::proto {
namespace {

constexpr std::size_t kDigestBytes = sizeof(Digest::bytes);

std::string text_of(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void write(const AggregationRound& round, wire::AggregationRound* out) {
  out->set_run(value_of(round.run));
  out->set_round(value_of(round.round));
  out->set_id(fixed_bytes(round.id.bytes));
}

/// The field `round`, which every message has.
template <typename WireMessage>
AggregationRound read_round(FieldReader& reader, const WireMessage& in) {
  AggregationRound round;
  reader.part(COVEY_FIELD(in, round), [&](const auto& part) {
    round.run = reader.id<RunId>(COVEY_FIELD(part, run));
    round.round = reader.id<RoundNumber>(COVEY_FIELD(part, round));
    round.id.bytes = reader.fixed<16>(COVEY_FIELD(part, id));
  });
  return round;
}

/// A list of parts of devices: `read(part)` gives one item.
template <typename Item, typename List, typename Read>
std::vector<Item> read_list(FieldReader& reader, const List& list, std::string_view field,
                            Read&& read) {
  std::vector<Item> items;
  if (!reader.length(list.size(), field, kMaxSumDevices)) return items;
  items.reserve(static_cast<std::size_t>(list.size()));
  for (const auto& item : list) {
    reader.part(true, item, field, [&](const auto& part) { items.push_back(read(part)); });
    if (reader.error()) break;
  }
  return items;
}

void write(const IdentityCertificate& identity, wire::IdentityCertificate* out) {
  out->set_client(value_of(identity.client));
  out->set_key(fixed_bytes(identity.key));
  out->set_signature(text_of(identity.signature));
}

IdentityCertificate read_identity(FieldReader& reader, const wire::IdentityCertificate& in) {
  IdentityCertificate identity;
  identity.client = reader.id<ClientId>(COVEY_FIELD(in, client));
  identity.key = reader.fixed<32>(COVEY_FIELD(in, key));
  identity.signature = reader.bytes(COVEY_FIELD(in, signature), kMaxCertificateSignatureBytes);
  if (identity.signature.empty()) reader.fail("signature", "must have at least 1 byte");
  return identity;
}

/// All but `client`, which only the server tells.
void write_keys(const KeyAdvertisement& keys, wire::KeyAdvertisement* out) {
  out->set_cipher_key(fixed_bytes(keys.cipher_key));
  out->set_mask_key(fixed_bytes(keys.mask_key));
  if (keys.signature != Signature{}) out->set_signature(fixed_bytes(keys.signature));
  if (keys.identity != IdentityCertificate{}) write(keys.identity, out->mutable_identity());
}

KeyAdvertisement read_keys(FieldReader& reader, const wire::KeyAdvertisement& in) {
  KeyAdvertisement keys;
  keys.cipher_key = reader.fixed<32>(COVEY_FIELD(in, cipher_key));
  keys.mask_key = reader.fixed<32>(COVEY_FIELD(in, mask_key));
  if (in.has_signature()) keys.signature = reader.fixed<64>(COVEY_FIELD(in, signature));
  if (in.has_identity()) {
    reader.part(COVEY_FIELD(in, identity),
                [&](const auto& part) { keys.identity = read_identity(reader, part); });
  }
  return keys;
}

void write(const EncryptedShares& shares, wire::EncryptedShares* out) {
  out->set_peer(value_of(shares.peer));
  out->set_ciphertext(text_of(shares.ciphertext));
  out->set_self_seed(fixed_bytes(shares.self_seed));
  out->set_mask_key(fixed_bytes(shares.mask_key));
}

/// The field `shares` of both directions.
template <typename WireMessage>
std::vector<EncryptedShares> read_shares(FieldReader& reader, const WireMessage& in) {
  return read_list<EncryptedShares>(reader, in.shares(), "shares", [&](const auto& part) {
    EncryptedShares shares;
    shares.peer = reader.id<ClientId>(COVEY_FIELD(part, peer));
    shares.ciphertext = reader.bytes(COVEY_FIELD(part, ciphertext), kMaxSecretBytes);
    shares.self_seed = reader.fixed<16>(COVEY_FIELD(part, self_seed));
    shares.mask_key = reader.fixed<16>(COVEY_FIELD(part, mask_key));
    return shares;
  });
}

void write_directory(const std::vector<Digest>& directory, std::string* out) {
  out->reserve(directory.size() * kDigestBytes);
  for (const Digest& digest : directory) out->append(fixed_bytes(digest.bytes));
}

std::vector<Digest> read_directory(FieldReader& reader, const std::string& bytes) {
  if (bytes.size() % kDigestBytes != 0) {
    reader.fail("directory", fmt::format("{} bytes, it must have {} for each device", bytes.size(),
                                         kDigestBytes));
    return {};
  }
  const std::size_t count = bytes.size() / kDigestBytes;
  // Counted before it is narrowed: a header of 2 GiB would still be an int.
  if (!reader.length(static_cast<int>(count), "directory", kMaxSumDevices)) return {};
  std::vector<Digest> directory(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(directory[i].bytes.data(), bytes.data() + i * kDigestBytes, kDigestBytes);
  }
  return directory;
}

}  // namespace

void write(const AdvertiseKeys& message, wire::AdvertiseKeys* out) {
  write(message.round, out->mutable_round());
  write_keys(message.keys, out->mutable_keys());
}

Result<ClientMessage> read_message(const wire::AdvertiseKeys& in) {
  FieldReader reader("advertise_keys");
  AdvertiseKeys message;
  message.round = read_round(reader, in);
  reader.part(COVEY_FIELD(in, keys), [&](const auto& part) {
    if (part.has_client()) reader.fail("client", "is for the server to say, not for a device");
    message.keys = read_keys(reader, part);
  });
  return finish<AdvertiseKeys, ClientMessage>(reader, std::move(message));
}

void write(const ShareKeys& message, wire::ShareKeys* out) {
  write(message.round, out->mutable_round());
  write_digest(message.self_seed, out->mutable_self_seed());
  out->set_own_share(fixed_bytes(message.own_share));
  for (const EncryptedShares& shares : message.shares) write(shares, out->add_shares());
}

Result<ClientMessage> read_message(const wire::ShareKeys& in) {
  FieldReader reader("share_keys");
  ShareKeys message;
  message.round = read_round(reader, in);
  message.self_seed = reader.digest(COVEY_FIELD(in, self_seed));
  message.own_share = reader.fixed<16>(COVEY_FIELD(in, own_share));
  message.shares = read_shares(reader, in);
  return finish<ShareKeys, ClientMessage>(reader, std::move(message));
}

void write(const ConfirmSurvivors& message, wire::ConfirmSurvivors* out) {
  write(message.round, out->mutable_round());
  write_digest(message.survivors, out->mutable_survivors());
  out->set_signature(fixed_bytes(message.signature));
}

Result<ClientMessage> read_message(const wire::ConfirmSurvivors& in) {
  FieldReader reader("confirm_survivors");
  ConfirmSurvivors message;
  message.round = read_round(reader, in);
  message.survivors = reader.digest(COVEY_FIELD(in, survivors));
  message.signature = reader.fixed<64>(COVEY_FIELD(in, signature));
  return finish<ConfirmSurvivors, ClientMessage>(reader, std::move(message));
}

void write(const Unmask& message, wire::Unmask* out) {
  write(message.round, out->mutable_round());
  for (const RevealedShare& share : message.shares) {
    auto* item = out->add_shares();
    item->set_owner(value_of(share.owner));
    item->set_self_seed(share.self_seed);
    item->set_share(text_of(share.share));
  }
  for (const ClientId client : message.unreadable) out->add_unreadable(value_of(client));
}

Result<ClientMessage> read_message(const wire::Unmask& in) {
  FieldReader reader("unmask");
  Unmask message;
  message.round = read_round(reader, in);
  message.shares = read_list<RevealedShare>(reader, in.shares(), "shares", [&](const auto& part) {
    RevealedShare share;
    share.owner = reader.id<ClientId>(COVEY_FIELD(part, owner));
    share.self_seed = reader.value(COVEY_FIELD(part, self_seed));
    share.share = reader.bytes(COVEY_FIELD(part, share), kMaxSecretBytes);
    return share;
  });
  if (reader.length(in.unreadable_size(), "unreadable", kMaxSumDevices)) {
    for (const std::uint64_t client : in.unreadable()) {
      message.unreadable.push_back(static_cast<ClientId>(client));
    }
  }
  return finish<Unmask, ClientMessage>(reader, std::move(message));
}

void write(const NeighbourKeys& message, wire::NeighbourKeys* out) {
  write(message.round, out->mutable_round());
  out->set_devices(message.devices);
  out->set_position(message.position);
  out->set_degree(message.degree);
  out->set_threshold(message.threshold);
  for (const Neighbour& neighbour : message.neighbours) {
    auto* item = out->add_neighbours();
    item->set_position(neighbour.position);
    write_keys(neighbour.keys, item->mutable_keys());
    item->mutable_keys()->set_client(value_of(neighbour.keys.client));
  }
  if (!message.directory.empty()) write_directory(message.directory, out->mutable_directory());
}

Result<ServerMessage> read_message(const wire::NeighbourKeys& in) {
  FieldReader reader("neighbour_keys");
  NeighbourKeys message;
  message.round = read_round(reader, in);
  message.devices = reader.value(COVEY_FIELD(in, devices));
  message.position = reader.value(COVEY_FIELD(in, position));
  message.degree = reader.value(COVEY_FIELD(in, degree));
  message.threshold = reader.value(COVEY_FIELD(in, threshold));
  message.neighbours =
      read_list<Neighbour>(reader, in.neighbours(), "neighbours", [&](const auto& part) {
        Neighbour neighbour;
        neighbour.position = reader.value(COVEY_FIELD(part, position));
        reader.part(COVEY_FIELD(part, keys), [&](const auto& keys) {
          neighbour.keys = read_keys(reader, keys);
          neighbour.keys.client = reader.id<ClientId>(COVEY_FIELD(keys, client));
        });
        return neighbour;
      });
  message.directory = read_directory(reader, in.directory());
  return finish<NeighbourKeys, ServerMessage>(reader, std::move(message));
}

void write(const PeerShares& message, wire::PeerShares* out) {
  write(message.round, out->mutable_round());
  for (const EncryptedShares& shares : message.shares) write(shares, out->add_shares());
}

Result<ServerMessage> read_message(const wire::PeerShares& in) {
  FieldReader reader("peer_shares");
  PeerShares message;
  message.round = read_round(reader, in);
  message.shares = read_shares(reader, in);
  return finish<PeerShares, ServerMessage>(reader, std::move(message));
}

void write(const SurvivorSet& message, wire::SurvivorSet* out) {
  write(message.round, out->mutable_round());
  out->set_survivors(text_of(message.survivors));
}

Result<ServerMessage> read_message(const wire::SurvivorSet& in) {
  FieldReader reader("survivor_set");
  SurvivorSet message;
  message.round = read_round(reader, in);
  message.survivors = reader.bytes(COVEY_FIELD(in, survivors), kMaxSurvivorBytes);
  return finish<SurvivorSet, ServerMessage>(reader, std::move(message));
}

void write(const SurvivorConfirmations& message, wire::SurvivorConfirmations* out) {
  write(message.round, out->mutable_round());
  for (const auto& confirmation : message.confirmations) {
    auto* item = out->add_confirmations();
    item->set_client(value_of(confirmation.client));
    item->set_signature(fixed_bytes(confirmation.signature));
  }
}

Result<ServerMessage> read_message(const wire::SurvivorConfirmations& in) {
  using Confirmation = SurvivorConfirmations::Confirmation;
  FieldReader reader("survivor_confirmations");
  SurvivorConfirmations message;
  message.round = read_round(reader, in);
  message.confirmations =
      read_list<Confirmation>(reader, in.confirmations(), "confirmations", [&](const auto& part) {
        Confirmation confirmation;
        confirmation.client = reader.id<ClientId>(COVEY_FIELD(part, client));
        confirmation.signature = reader.fixed<64>(COVEY_FIELD(part, signature));
        return confirmation;
      });
  return finish<SurvivorConfirmations, ServerMessage>(reader, std::move(message));
}

}  // namespace covey::proto
