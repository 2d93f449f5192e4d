#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>

#include "secagg/secagg_server_state.hpp"

// What devices say to the server of a secure sum, and what it believes.
namespace covey::privacy {
namespace {

// DER of an ECDSA P-256 signature has at most 72 bytes, Ed25519 has 64.
constexpr std::size_t kMaxCertificateSignature = 128;

Result<void> check_round(const AggregationRound& own, const AggregationRound& message) {
  if (own == message) return {};
  if (own.run == message.run && own.round != message.round) {
    return malformed(fmt::format("a message of round {} in round {}", value_of(message.round),
                                 value_of(own.round)));
  }
  return malformed("a message of another run or another attempt at the round");
}

Error too_late(const char* what) { return malformed(fmt::format("{}: that step is over", what)); }

}  // namespace

std::string device_name(ClientId client) { return fmt::format("device {}", value_of(client)); }

Result<void> SecAggServer::State::check_advertisement(const KeyAdvertisement& own) const {
  for (const PublicKey& key : {own.cipher_key, own.mask_key}) {
    if (is_small_order(key)) return malformed("advertised keys: a point of small order");
    if (keys.contains(key)) return malformed("advertised keys: another device's key");
  }
  if (own.cipher_key == own.mask_key) return malformed("advertised keys: the same key twice");
  if (!malicious_server()) return {};
  if (own.identity.signature.size() > kMaxCertificateSignature) {
    return malformed(fmt::format("identity certificate: a signature of {} bytes",
                                 own.identity.signature.size()));
  }
  if (own.identity.client != own.client) {
    return malformed(
        fmt::format("identity certificate: device {}'s", value_of(own.identity.client)));
  }
  if (authority.has_value()) COVEY_TRY(authority->check(own.identity));
  if (!check_signature(own.identity.key, advertisement_statement(digest, own), own.signature)
           .ok()) {
    return malformed(
        "advertised keys: not signed by the device's identity for this round, model and plan");
  }
  return {};
}

Result<void> SecAggServer::add(ClientId client, const AdvertiseKeys& message) {
  State& s = *state_;
  COVEY_TRY(check_round(s.context.round, message.round));
  KeyAdvertisement keys = message.keys;
  keys.client = client;
  if (!s.malicious_server()) {
    keys.signature = {};
    keys.identity = {};
  }
  const auto before = s.advertised.find(client);
  const Member* member = s.find(client);
  if (before != s.advertised.end() || member != nullptr) {
    if ((member != nullptr ? member->keys : before->second) == keys) return {};
    return malformed("advertised keys: other keys than before");
  }
  if (s.step != Step::kAdvertise) return too_late("advertised keys");
  if (s.advertised.size() >= s.context.settings.max_devices) {
    return failed(fmt::format("advertised keys: the sum has its {} devices already",
                              s.context.settings.max_devices));
  }
  COVEY_TRY(s.check_advertisement(keys));
  s.keys.insert(keys.cipher_key);
  s.keys.insert(keys.mask_key);
  s.advertised.emplace(client, std::move(keys));
  return {};
}

Result<void> SecAggServer::State::check_share_keys(const Member& sender,
                                                   const ShareKeys& message) const {
  if (message.shares.size() != sender.neighbours.size()) {
    return malformed(fmt::format("shared keys: {} encrypted shares for {} neighbours",
                                 message.shares.size(), sender.neighbours.size()));
  }
  for (std::size_t i = 0; i < message.shares.size(); ++i) {
    const auto& entry = message.shares[i];
    if (entry.peer != clients[sender.neighbours[i]]) {
      return malformed(fmt::format("shared keys: shares for device {} where device {}'s belong",
                                   value_of(entry.peer), value_of(clients[sender.neighbours[i]])));
    }
    if (entry.ciphertext.size() != kSharesCiphertextBytes) {
      return malformed(
          fmt::format("shared keys: {} bytes of encrypted shares for device {}, not {}",
                      entry.ciphertext.size(), value_of(entry.peer), kSharesCiphertextBytes));
    }
  }
  return {};
}

Result<void> SecAggServer::add(ClientId client, const ShareKeys& message) {
  State& s = *state_;
  COVEY_TRY(check_round(s.context.round, message.round));
  Member* member = s.find(client);
  if (member == nullptr) return malformed("shared keys: without advertised keys");
  if (member->shared) {
    if (fingerprint(message) == member->share_keys) return {};
    return malformed("shared keys: other shares than before");
  }
  if (s.step != Step::kShare) return too_late("shared keys");
  COVEY_TRY(s.check_share_keys(*member, message));
  member->share_keys = fingerprint(message);
  member->self_seed = message.self_seed;
  member->own_share = message.own_share;
  member->dealt.reserve(message.shares.size());
  member->ciphertexts.reserve(message.shares.size() * kSharesCiphertextBytes);
  for (const auto& entry : message.shares) {
    member->dealt.push_back({entry.self_seed, entry.mask_key});
    member->ciphertexts.insert(member->ciphertexts.end(), entry.ciphertext.begin(),
                               entry.ciphertext.end());
  }
  member->shared = true;
  return {};
}

void SecAggServer::add_masked_input(ClientId client) {
  State& s = *state_;
  Member* member = s.find(client);
  COVEY_ASSERT(s.step == Step::kMask && member != nullptr && member->member);
  member->survivor = true;
}

Result<void> SecAggServer::add(ClientId client, const ConfirmSurvivors& message) {
  State& s = *state_;
  COVEY_TRY(check_round(s.context.round, message.round));
  if (!s.malicious_server()) return malformed("confirmed survivors: nobody asked");
  const bool asked = s.step == Step::kConfirm || s.step == Step::kUnmask;
  Member* member = s.find(client);
  if (!asked || member == nullptr || !member->survivor) {
    return malformed("confirmed survivors: of a sum that this device is not in");
  }
  const Digest set = survivors_digest(s.digest, s.graph, s.survivors);
  if (message.survivors != set) return malformed("confirmed survivors: another set");
  if (member->confirmation.has_value()) {
    if (*member->confirmation == message.signature) return {};
    return malformed("confirmed survivors: another signature than before");
  }
  if (!check_signature(member->keys.identity.key, survivors_statement(s.digest, set),
                       message.signature)
           .ok()) {
    return malformed("confirmed survivors: not signed by the device's identity");
  }
  member->confirmation = message.signature;
  // Later ones let this device go on; to others nothing changes any more.
  member->confirmed_in_time = s.step == Step::kConfirm;
  return {};
}

// Of each neighbour that masks, and of the device itself, one share or the word that it is
// unreadable; both lists ascending, so that none comes twice.
Result<void> SecAggServer::State::check_unmask(const Member& sender, const Unmask& message) const {
  const std::size_t expected = 1 + static_cast<std::size_t>(std::count_if(
                                       sender.neighbours.begin(), sender.neighbours.end(),
                                       [&](std::uint32_t p) { return members[p].member; }));
  if (message.shares.size() + message.unreadable.size() != expected) {
    return malformed(fmt::format("unmask: {} shares and {} unreadable ones, together not {}",
                                 message.shares.size(), message.unreadable.size(), expected));
  }
  const auto check_owner = [&](ClientId owner) -> Result<const Member*> {
    const Member* member = find(owner);
    const bool known =
        member == &sender || (member != nullptr && member->member &&
                              std::binary_search(sender.neighbours.begin(), sender.neighbours.end(),
                                                 position_of(*member)));
    if (known) return member;
    return malformed("unmask: " + device_name(owner) + " dealt this device no shares");
  };
  for (std::size_t i = 0; i < message.shares.size(); ++i) {
    const auto& share = message.shares[i];
    COVEY_ASSIGN(const Member* owner, check_owner(share.owner));
    if (i > 0 && message.shares[i - 1].owner >= share.owner) {
      return malformed("unmask: " + device_name(share.owner) + " is repeated or out of order");
    }
    if (share.self_seed != owner->survivor) {
      return malformed("unmask: the wrong one of " + device_name(share.owner) + "'s secrets");
    }
    if (share.share.size() != kShareBytes) {
      return malformed(
          fmt::format("unmask: a share of {} bytes, not {}", share.share.size(), kShareBytes));
    }
  }
  for (std::size_t i = 0; i < message.unreadable.size(); ++i) {
    const ClientId owner = message.unreadable[i];
    COVEY_ASSIGN(const Member* dealer, check_owner(owner));
    const auto by_owner = [](const RevealedShare& share, ClientId c) { return share.owner < c; };
    const auto at = std::lower_bound(message.shares.begin(), message.shares.end(), owner, by_owner);
    const bool also_shared = at != message.shares.end() && at->owner == owner;
    if (dealer == &sender || also_shared || (i > 0 && message.unreadable[i - 1] >= owner)) {
      return malformed("unmask: " + device_name(owner) + " is repeated or out of order");
    }
  }
  return {};
}

// A share that is not what its owner committed to is the holder's fault: it would have said
// "unreadable" of one that it was dealt like that.
void SecAggServer::State::keep_share(const Member& holder, const RevealedShare& share) {
  const Member& owner = *find(share.owner);
  const std::uint32_t holder_position = position_of(holder);
  const std::uint32_t owner_position = position_of(owner);
  const ClientId holder_client = holder.keys.client;
  ShareCommitment committed = owner.own_share;
  if (holder_position != owner_position) {
    const auto& dealt = owner.dealt[index_of(owner, holder_position)];
    committed = share.self_seed ? dealt.self_seed : dealt.mask_key;
  }
  const std::span<const std::byte, kShareBytes> bytes(share.share.data(), kShareBytes);
  if (commitment_of(digest, {share.owner, holder_client, share.self_seed}, bytes) != committed) {
    faults.push_back({holder_client, "revealed a wrong share of " + device_name(share.owner) +
                                         "'s " +
                                         (share.self_seed ? "self mask's seed" : "mask key")});
    return;
  }
  auto& secret = (*revealed)[owner_position];
  if (secret.shares.empty()) {  // once, for growing would copy and wipe them again and again
    secret.points.reserve(owner.neighbours.size() + 1);
    secret.shares.reserve(owner.neighbours.size() + 1);
  }
  secret.points.push_back(holder_position + 1);
  std::copy(bytes.begin(), bytes.end(), secret.shares.emplace_back().span().begin());
  if (needed[owner_position] != 0 && secret.shares.size() == size.threshold) --unfinished;
}

Result<void> SecAggServer::add(ClientId client, const Unmask& message) {
  State& s = *state_;
  COVEY_TRY(check_round(s.context.round, message.round));
  Member* member = s.find(client);
  if (s.step != Step::kUnmask || member == nullptr || !member->survivor) {
    return malformed("unmask: of a sum that this device is not in");
  }
  if (member->unmask.has_value()) {
    if (fingerprint(message) == *member->unmask) return {};
    return malformed("unmask: other shares than before");
  }
  COVEY_TRY(s.check_unmask(*member, message));
  if (s.handed_out) {
    s.revealed = std::make_shared<std::vector<RevealedSecret>>(*s.revealed);
    s.handed_out = false;
  }
  for (const auto& share : message.shares) s.keep_share(*member, share);
  for (const ClientId owner : message.unreadable) {
    s.faults.push_back(
        {owner, "its encrypted shares did not open or match, says " + device_name(client)});
  }
  member->unmask = fingerprint(message);
  return {};
}

}  // namespace covey::privacy
