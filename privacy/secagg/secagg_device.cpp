#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/privacy/secagg_device.hpp>

#include "secagg/bindings.hpp"
#include "secagg/device_checks.hpp"
#include "secagg/keys.hpp"
#include "secagg/shamir.hpp"

namespace covey::privacy {

struct SecAggDevice::State {
  Options options;
  Digest context;
  KeyPair cipher;
  KeyPair mask;
  AdvertiseKeys advertisement;

  // From the neighbour keys on. The secrets above and here go as soon as nothing needs them.
  std::optional<Digest> neighbour_keys;  ///< fingerprint
  Digest graph;                          ///< seed of the neighbour graph; malicious server only
  std::uint32_t devices = 0;
  std::uint32_t position = 0;
  std::uint32_t threshold = 0;
  std::vector<Peer> peers;  ///< ascending
  Secret<32> self_seed;
  ShareBytes own_share;  ///< of the self seed
  ShareKeys share_keys;  ///< the answer

  // From the peers' shares on.
  std::optional<Digest> peer_shares;
  std::shared_ptr<const MaskJob> mask_job;

  // From the survivors on.
  std::optional<std::vector<std::byte>> survivors;
  std::optional<ConfirmSurvivors> confirmation;
  std::optional<Unmask> unmask;

  bool malicious_server() const {
    return options.context.settings.threat_model == ThreatModel::kMaliciousServer;
  }
  SurvivorCheck survivor_check() const { return {devices, position, threshold, peers}; }
  std::vector<Peer> meet(const NeighbourKeys& message) const;
  Result<void> deal(const NeighbourKeys& message);
  Result<std::vector<MaskKey>> mask_keys(std::span<const Peer> members) const;
  void open_shares_of(const EncryptedShares& entry, Peer& peer) const;
  void forget_what_stays_hidden();
  Unmask reveal();
};

namespace {

Error repeated_with_other_content(const char* what) {
  return malformed(fmt::format("{}: another message than the first of this step", what));
}

Peer* peer_of(std::vector<Peer>& peers, ClientId client) {
  const auto at = std::lower_bound(peers.begin(), peers.end(), client,
                                   [](const Peer& p, ClientId c) { return p.client < c; });
  COVEY_ASSERT(at != peers.end() && at->client == client);
  return &*at;
}

Result<void> check_options(const SecAggDevice::Options& options) {
  const auto& settings = options.context.settings;
  if (!settings.enabled()) {
    return invalid_argument("the plan does not ask for secure aggregation");
  }
  if (options.secrets == nullptr) {
    return invalid_argument("secure aggregation needs a source of secrets");
  }
  if (settings.threat_model != ThreatModel::kMaliciousServer) return {};
  if (options.credentials == nullptr) {
    return invalid_argument(
        "this device has no certified identity, which secure aggregation against a malicious "
        "server "
        "takes; provision it again");
  }
  const auto& credentials = *options.credentials;
  if (credentials.certificate.client != options.client ||
      credentials.certificate.key != credentials.identity.public_key()) {
    return invalid_argument(fmt::format("the identity certificate is not of device {} and its key",
                                        value_of(options.client)));
  }
  return credentials.authority.check(credentials.certificate);
}

}  // namespace

Result<SecAggDevice> SecAggDevice::make(Options options) {
  COVEY_TRY(check_options(options));
  auto state = std::make_unique<State>();
  state->context = options.context.digest();
  COVEY_ASSIGN(state->cipher, KeyPair::make(*options.secrets));
  COVEY_ASSIGN(state->mask, KeyPair::make(*options.secrets));
  auto& advertisement = state->advertisement;
  advertisement.round = options.context.round;
  advertisement.keys.client = options.client;
  advertisement.keys.cipher_key = state->cipher.public_key;
  advertisement.keys.mask_key = state->mask.public_key;
  state->options = std::move(options);
  if (state->malicious_server()) {
    const auto& credentials = *state->options.credentials;
    advertisement.keys.identity = credentials.certificate;
    advertisement.keys.signature =
        credentials.identity.sign(advertisement_statement(state->context, advertisement.keys));
  }
  return SecAggDevice(std::move(state));
}

SecAggDevice::SecAggDevice(std::unique_ptr<State> state) : state_(std::move(state)) {}
SecAggDevice::SecAggDevice(SecAggDevice&&) noexcept = default;
SecAggDevice& SecAggDevice::operator=(SecAggDevice&&) noexcept = default;
SecAggDevice::~SecAggDevice() = default;

const AggregationRound& SecAggDevice::round() const { return state_->options.context.round; }
const AdvertiseKeys& SecAggDevice::advertise() const { return state_->advertisement; }

std::vector<Peer> SecAggDevice::State::meet(const NeighbourKeys& message) const {
  std::vector<Peer> met(message.neighbours.size());
  for (std::size_t i = 0; i < met.size(); ++i) {
    const auto& neighbour = message.neighbours[i];
    met[i].position = neighbour.position;
    met[i].client = neighbour.keys.client;
    met[i].mask_key = neighbour.keys.mask_key;
    met[i].identity = neighbour.keys.identity.key;
  }
  return met;
}

// Makes the seed, deals both secrets and seals the shares. Everything is made before anything is
// kept.
Result<void> SecAggDevice::State::deal(const NeighbourKeys& message) {
  const ClientId own = options.client;
  auto met = meet(message);
  std::vector<std::uint32_t> points;  // position + 1; this device's own last
  for (const Peer& peer : met) points.push_back(peer.position + 1);
  points.push_back(message.position + 1);

  Secret<32> seed;
  COVEY_TRY(options.secrets->fill(seed.span()));
  COVEY_ASSIGN(auto seed_shares, split(seed, message.threshold, points, *options.secrets));
  COVEY_ASSIGN(auto key_shares, split(mask.secret, message.threshold, points, *options.secrets));

  ShareKeys answer;
  answer.round = options.context.round;
  answer.self_seed = seed_commitment(context, own, seed);
  answer.own_share =
      commitment_of(context, {own, own, true}, std::as_const(seed_shares.back()).span());
  answer.shares.resize(met.size());
  for (std::size_t i = 0; i < met.size(); ++i) {
    const ClientId peer = met[i].client;
    const SharePair pair{seed_shares[i], key_shares[i]};
    COVEY_ASSIGN(
        met[i].share_base,
        share_base_key(cipher.secret, message.neighbours[i].keys.cipher_key, context, own, peer));
    auto& sealed = answer.shares[i];
    sealed.peer = peer;
    COVEY_ASSIGN(sealed.ciphertext, seal_shares(met[i].share_base, context, own, peer, pair));
    sealed.self_seed = commitment_of(context, {own, peer, true}, pair.self_seed.span());
    sealed.mask_key = commitment_of(context, {own, peer, false}, pair.mask_key.span());
  }

  peers = std::move(met);
  if (malicious_server()) graph = graph_seed(context, message.directory);
  devices = message.devices;
  position = message.position;
  threshold = message.threshold;
  self_seed = seed;
  own_share = seed_shares.back();
  share_keys = std::move(answer);
  cipher.secret.clear();
  return {};
}

Result<ShareKeys> SecAggDevice::take(const NeighbourKeys& message) {
  State& s = *state_;
  COVEY_TRY(check_round(round(), message.round, "neighbour keys"));
  if (s.neighbour_keys.has_value()) {
    if (fingerprint(message) != *s.neighbour_keys) {
      return repeated_with_other_content("neighbour keys");
    }
    return s.share_keys;
  }
  const OwnAdvertisement own{s.options.context, s.context, s.advertisement.keys,
                             s.malicious_server() ? &s.options.credentials->authority : nullptr};
  COVEY_TRY(check_neighbour_keys(own, message));
  COVEY_TRY(s.deal(message));
  s.neighbour_keys = fingerprint(message);
  return s.share_keys;
}

// What does not open, or is not what the dealer committed to, is remembered and named when this
// device is asked for shares; masks with that peer are there all the same, for others hold good
// shares of it.
void SecAggDevice::State::open_shares_of(const EncryptedShares& entry, Peer& peer) const {
  peer.shared = true;
  auto opened =
      open_shares(peer.share_base, context, peer.client, options.client, entry.ciphertext);
  if (!opened.ok()) return;
  const auto matches = [&](bool seed, const ShareBytes& share, const ShareCommitment& committed) {
    return commitment_of(context, {peer.client, options.client, seed}, share.span()) == committed;
  };
  if (!matches(true, opened->self_seed, entry.self_seed) ||
      !matches(false, opened->mask_key, entry.mask_key)) {
    return;
  }
  peer.readable = true;
  peer.self_seed = opened->self_seed;
  peer.mask_key_share = opened->mask_key;
}

Result<std::vector<MaskKey>> SecAggDevice::State::mask_keys(std::span<const Peer> members) const {
  std::vector<MaskKey> masks;
  masks.reserve(members.size() + 1);
  masks.push_back({self_mask_key(self_seed, context, options.client), false});
  for (const Peer& peer : members) {
    if (!peer.shared) continue;
    auto key = pair_mask_key(mask.secret, peer.mask_key, context, options.client, peer.client);
    if (!key.ok()) {
      return with_context(fmt::format("mask with device {}", value_of(peer.client)), key.error());
    }
    masks.push_back({*key, peer.client < options.client});
  }
  return masks;
}

Result<std::shared_ptr<const MaskJob>> SecAggDevice::take(const PeerShares& message) {
  State& s = *state_;
  COVEY_TRY(check_round(round(), message.round, "peer shares"));
  if (!s.neighbour_keys.has_value()) {
    return malformed("peer shares: before the neighbours' keys");
  }
  if (s.peer_shares.has_value()) {
    if (fingerprint(message) != *s.peer_shares) return repeated_with_other_content("peer shares");
    if (s.mask_job == nullptr) return malformed("peer shares: again, after the survivor set");
    return s.mask_job;
  }
  COVEY_TRY(check_peer_shares(s.peers, s.threshold, message));
  std::vector<Peer> members = s.peers;
  for (const auto& entry : message.shares) s.open_shares_of(entry, *peer_of(members, entry.peer));
  COVEY_ASSIGN(auto masks, s.mask_keys(members));

  for (Peer& peer : members) peer.share_base.clear();
  s.peers = std::move(members);
  s.mask_job = std::make_shared<const MaskJob>(s.options.context.settings.cipher, std::move(masks));
  s.peer_shares = fingerprint(message);
  s.self_seed.clear();
  s.mask.secret.clear();
  return s.mask_job;
}

// Of each peer one secret stays hidden for good: the mask key's of a survivor, the self seed's of
// one that dropped out. This device cannot be brought to tell what it does not have any more.
void SecAggDevice::State::forget_what_stays_hidden() {
  for (Peer& peer : peers) {
    if (is_survivor(*survivors, peer.position)) {
      peer.mask_key_share.clear();
    } else {
      peer.self_seed.clear();
    }
  }
  mask_job.reset();
}

Unmask SecAggDevice::State::reveal() {
  Unmask answer;
  answer.round = options.context.round;
  const auto tell = [&answer](ClientId owner, bool seed, ShareBytes& share) {
    const auto bytes = std::as_const(share).span();
    answer.shares.push_back({owner, seed, {bytes.begin(), bytes.end()}});
    share.clear();
  };
  bool own_told = false;
  for (Peer& peer : peers) {
    if (!own_told && peer.position > position) {
      tell(options.client, true, own_share);
      own_told = true;
    }
    if (!peer.shared) continue;
    if (!peer.readable) {
      answer.unreadable.push_back(peer.client);
    } else if (is_survivor(*survivors, peer.position)) {
      tell(peer.client, true, peer.self_seed);
    } else {
      tell(peer.client, false, peer.mask_key_share);
    }
  }
  if (!own_told) tell(options.client, true, own_share);
  return answer;
}

Result<std::variant<Unmask, ConfirmSurvivors>> SecAggDevice::take(const SurvivorSet& message) {
  using Answer = std::variant<Unmask, ConfirmSurvivors>;
  State& s = *state_;
  COVEY_TRY(check_round(round(), message.round, "survivor set"));
  if (!s.peer_shares.has_value()) return malformed("survivor set: before the peers' shares");
  if (s.survivors.has_value()) {
    if (*s.survivors != message.survivors) return repeated_with_other_content("survivor set");
  } else {
    COVEY_TRY(check_survivors(s.survivor_check(), message.survivors));
    s.survivors = message.survivors;
    s.forget_what_stays_hidden();
  }
  if (!s.malicious_server()) {
    if (!s.unmask.has_value()) s.unmask = s.reveal();
    return Answer(*s.unmask);
  }
  if (!s.confirmation.has_value()) {
    const Digest set = survivors_digest(s.context, s.graph, *s.survivors);
    const auto statement = survivors_statement(s.context, set);
    s.confirmation =
        ConfirmSurvivors{round(), set, s.options.credentials->identity.sign(statement)};
  }
  return Answer(*s.confirmation);
}

Result<Unmask> SecAggDevice::take(const SurvivorConfirmations& message) {
  State& s = *state_;
  COVEY_TRY(check_round(round(), message.round, "confirmations"));
  if (!s.malicious_server()) {
    return malformed("confirmations: the plan trusts the server, so nobody confirms");
  }
  if (!s.confirmation.has_value()) return malformed("confirmations: before the survivor set");
  const auto statement = survivors_statement(s.context, s.confirmation->survivors);
  COVEY_TRY(check_confirmations(s.survivor_check(), *s.survivors, statement, message));
  if (!s.unmask.has_value()) s.unmask = s.reveal();
  return *s.unmask;
}

}  // namespace covey::privacy
