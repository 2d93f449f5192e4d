#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/privacy/secagg_server.hpp>

#include "secagg/secagg_server_state.hpp"

// The steps of the server's side, and what it tells devices. What they say:
// secagg_server_messages.cpp.
namespace covey::privacy {

SecAggServer::SecAggServer(AggregationContext context, std::optional<AuthorityKey> authority)
    : state_(std::make_unique<State>()) {
  state_->digest = context.digest();
  state_->context = std::move(context);
  state_->authority = std::move(authority);
}
SecAggServer::SecAggServer(SecAggServer&&) noexcept = default;
SecAggServer& SecAggServer::operator=(SecAggServer&&) noexcept = default;
SecAggServer::~SecAggServer() = default;

SecAggServer::Step SecAggServer::step() const { return state_->step; }
const Neighbourhood& SecAggServer::neighbourhood() const { return state_->size; }
std::size_t SecAggServer::survivors() const { return state_->num_survivors; }
const std::vector<Fault>& SecAggServer::faults() const { return state_->faults; }

const Member* SecAggServer::State::find(ClientId client) const {
  const auto at = std::lower_bound(clients.begin(), clients.end(), client);
  if (at == clients.end() || *at != client) return nullptr;
  return &members[static_cast<std::size_t>(at - clients.begin())];
}

Member* SecAggServer::State::find(ClientId client) {
  return const_cast<Member*>(std::as_const(*this).find(client));
}

std::size_t SecAggServer::State::index_of(const Member& member, std::uint32_t neighbour) const {
  if (size.complete()) return neighbour - (neighbour > position_of(member) ? 1U : 0U);
  const auto at = std::lower_bound(member.neighbours.begin(), member.neighbours.end(), neighbour);
  COVEY_ASSERT(at != member.neighbours.end() && *at == neighbour);
  return static_cast<std::size_t>(at - member.neighbours.begin());
}

bool SecAggServer::State::confirmations_suffice(const Member& member) const {
  std::size_t count = 1;  // its own, which it need not be told
  for (const std::uint32_t position : member.neighbours) {
    count += members[position].confirmed_in_time;
  }
  return count >= size.threshold;
}

bool SecAggServer::State::may_unmask(const Member& member) const {
  return member.confirmation.has_value() && confirmations_suffice(member);
}

bool SecAggServer::State::awaits(const Member& member) const {
  if (member.left) return false;
  switch (step) {
    case Step::kAdvertise:
      return false;
    case Step::kShare:
      return !member.shared;
    case Step::kMask:
      return member.member && !member.survivor;
    case Step::kConfirm:
      return member.survivor && !member.confirmation.has_value();
    case Step::kUnmask:
      return member.survivor && !member.unmask.has_value() &&
             (!malicious_server() || may_unmask(member));
  }
  return false;
}

void SecAggServer::leave(ClientId client) {
  State& s = *state_;
  if (const auto at = s.advertised.find(client); at != s.advertised.end()) {
    s.keys.erase(at->second.cipher_key);
    s.keys.erase(at->second.mask_key);
    s.advertised.erase(at);
  }
  if (Member* member = s.find(client); member != nullptr) member->left = true;
}

std::size_t SecAggServer::awaited() const {
  const auto& members = state_->members;
  return static_cast<std::size_t>(
      std::count_if(members.begin(), members.end(),
                    [&](const Member& member) { return state_->awaits(member); }));
}

bool SecAggServer::awaits(ClientId client) const {
  const Member* member = std::as_const(*state_).find(client);
  return member != nullptr && state_->awaits(*member);
}

bool SecAggServer::advertised(ClientId client) const {
  return state_->advertised.contains(client) || std::as_const(*state_).find(client) != nullptr;
}

bool SecAggServer::shared(ClientId client) const {
  const auto* device = std::as_const(*state_).find(client);
  return device != nullptr && device->member;
}

Result<void> SecAggServer::State::close_advertise() {
  if (advertised.size() < 2) {
    return failed(
        fmt::format("{} devices advertised keys; a sum of fewer than 2 "
                    "would be one device's update",
                    advertised.size()));
  }
  COVEY_ASSIGN(size, neighbourhood_for(static_cast<std::uint32_t>(advertised.size()),
                                       context.settings, security_of(context.settings)));
  members.resize(advertised.size());
  std::vector<Digest> entries;
  std::size_t position = 0;
  for (auto& [client, own] : advertised) {
    entries.push_back(advertisement_digest(digest, own));
    clients.push_back(client);
    members[position++].keys = std::move(own);
  }
  graph = graph_seed(digest, entries);
  const NeighbourGraph neighbours(size, graph);
  for (std::uint32_t i = 0; i < members.size(); ++i) {
    members[i].neighbours = neighbours.neighbours_of(i);
  }
  if (malicious_server()) directory = std::move(entries);
  advertised.clear();
  keys.clear();
  step = Step::kShare;
  return {};
}

Result<void> SecAggServer::State::close_share() {
  std::size_t shared = 0;
  for (Member& member : members) {
    member.member = member.shared && !member.left;
    shared += member.member;
  }
  // A device with fewer than t in its neighbourhood would give up, so it is left out, which may
  // take the t-th from another: again until nothing changes.
  std::vector<std::uint32_t> left_out;
  const auto is_member = [](const Member& m) { return m.member; };
  const auto look_at = [&](std::uint32_t position) {
    Member& member = members[position];
    if (!member.member || count_around(member, is_member) >= size.threshold) return;
    member.member = false;
    left_out.push_back(position);
  };
  for (std::uint32_t i = 0; i < members.size(); ++i) look_at(i);
  for (std::size_t i = 0; i < left_out.size(); ++i) {
    for (const std::uint32_t neighbour : members[left_out[i]].neighbours) look_at(neighbour);
  }
  if (left_out.size() == shared) {
    return failed(fmt::format(
        "only {} of {} devices shared their keys; {} {}", shared, members.size(),
        size.complete() ? "the sum needs" : "each neighbourhood needs", size.threshold));
  }
  step = Step::kMask;
  return {};
}

template <typename Can>
Result<void> SecAggServer::State::check_reconstructible(const Can& can) const {
  const auto masked_with_it = [](const Member& m) { return m.survivor; };
  for (const Member& member : members) {
    const bool dropped =
        member.member && !member.survivor && count_around(member, masked_with_it) > 0;
    if (!member.survivor && !dropped) continue;
    // A dropped device is no survivor, so its own share of its mask key is not counted.
    const std::size_t holders = count_around(member, can);
    if (holders >= size.threshold) continue;
    return failed(
        fmt::format("only {} of the {} devices with shares of device {}'s {} are left; it "
                    "takes {}",
                    holders, member.neighbours.size() + 1, value_of(member.keys.client),
                    member.survivor ? "self mask's seed" : "mask key", size.threshold));
  }
  return {};
}

Result<void> SecAggServer::State::close_mask() {
  const auto masked = static_cast<std::size_t>(
      std::count_if(members.begin(), members.end(), [](const Member& m) { return m.survivor; }));
  if (masked < size.threshold) {
    return failed(fmt::format("only {} of {} devices sent their masked update; the sum needs {}",
                              masked, members.size(), size.threshold));
  }
  COVEY_TRY(check_reconstructible([](const Member& m) { return m.survivor && !m.left; }));
  survivors.assign(survivor_bytes(members.size()), std::byte{0});
  for (std::uint32_t i = 0; i < members.size(); ++i) {
    if (members[i].survivor) survivors[i / 8] |= static_cast<std::byte>(1U << (i % 8));
    members[i].ciphertexts = {};
  }
  num_survivors = masked;
  if (malicious_server()) {
    step = Step::kConfirm;
  } else {
    begin_unmask();
  }
  return {};
}

Result<void> SecAggServer::State::close_confirm() {
  const auto confirmed = static_cast<std::size_t>(std::count_if(
      members.begin(), members.end(), [](const Member& m) { return m.confirmed_in_time; }));
  if (confirmed < size.threshold) {
    return failed(fmt::format("only {} of {} survivors confirmed each other; the sum needs {}",
                              confirmed, num_survivors, size.threshold));
  }
  COVEY_TRY(check_reconstructible(
      [this](const Member& m) { return m.survivor && !m.left && confirmations_suffice(m); }));
  begin_unmask();
  return {};
}

void SecAggServer::State::begin_unmask() {
  revealed = std::make_shared<std::vector<RevealedSecret>>(members.size());
  needed.assign(members.size(), 0);
  const auto is_survivor = [](const Member& m) { return m.survivor; };
  for (std::uint32_t i = 0; i < members.size(); ++i) {
    const Member& member = members[i];
    const bool dropped = member.member && !member.survivor && count_around(member, is_survivor) > 0;
    needed[i] = static_cast<char>(member.survivor || dropped);
    unfinished += needed[i] != 0;
  }
  step = Step::kUnmask;
}

Result<void> SecAggServer::close_step() {
  switch (state_->step) {
    case Step::kAdvertise:
      return state_->close_advertise();
    case Step::kShare:
      return state_->close_share();
    case Step::kMask:
      return state_->close_mask();
    case Step::kConfirm:
      return state_->close_confirm();
    case Step::kUnmask:
      break;
  }
  const auto job = unmask();
  if (!job.ok()) return job.error();
  return {};
}

std::optional<NeighbourKeys> SecAggServer::neighbour_keys(ClientId client) const {
  const State& s = *state_;
  const Member* member = s.find(client);
  if (s.step != Step::kShare || member == nullptr) return std::nullopt;
  NeighbourKeys message;
  message.round = s.context.round;
  message.devices = s.size.devices;
  message.position = s.position_of(*member);
  message.degree = s.size.degree;
  message.threshold = s.size.threshold;
  message.neighbours.reserve(member->neighbours.size());
  for (const std::uint32_t position : member->neighbours) {
    message.neighbours.push_back({position, s.members[position].keys});
  }
  message.directory = s.directory;
  return message;
}

std::optional<PeerShares> SecAggServer::peer_shares(ClientId client) const {
  const State& s = *state_;
  const Member* member = s.find(client);
  if (s.step != Step::kMask || member == nullptr || !member->member) return std::nullopt;
  PeerShares message;
  message.round = s.context.round;
  message.shares.reserve(member->neighbours.size());
  const std::uint32_t own = s.position_of(*member);
  for (const std::uint32_t position : member->neighbours) {
    const Member& peer = s.members[position];
    if (!peer.member) continue;
    const std::size_t index = s.index_of(peer, own);
    const auto* ciphertext = peer.ciphertexts.data() + index * kSharesCiphertextBytes;
    message.shares.push_back({peer.keys.client,
                              {ciphertext, ciphertext + kSharesCiphertextBytes},
                              peer.dealt[index].self_seed,
                              peer.dealt[index].mask_key});
  }
  return message;
}

std::optional<SurvivorSet> SecAggServer::survivor_set(ClientId client) const {
  const State& s = *state_;
  const Member* member = s.find(client);
  const bool told = s.step == Step::kConfirm || s.step == Step::kUnmask;
  if (!told || member == nullptr || !member->survivor) return std::nullopt;
  return SurvivorSet{s.context.round, s.survivors};
}

std::optional<SurvivorConfirmations> SecAggServer::confirmations(ClientId client) const {
  const State& s = *state_;
  const Member* member = s.find(client);
  if (s.step != Step::kUnmask || !s.malicious_server() || member == nullptr ||
      !s.may_unmask(*member)) {
    return std::nullopt;
  }
  SurvivorConfirmations message;
  message.round = s.context.round;
  for (const std::uint32_t position : member->neighbours) {
    const Member& peer = s.members[position];
    if (!peer.confirmed_in_time) continue;
    message.confirmations.push_back({peer.keys.client, *peer.confirmation});
  }
  return message;
}

bool SecAggServer::can_unmask() const {
  return state_->step == Step::kUnmask && state_->unfinished == 0;
}

Result<UnmaskJob> SecAggServer::unmask() const {
  const State& s = *state_;
  if (s.step != Step::kUnmask) {
    return failed("a secure sum cannot be unmasked before its last step");
  }
  auto job = std::make_shared<UnmaskJob::State>();
  const auto is_survivor = [](const Member& m) { return m.survivor; };
  for (std::uint32_t i = 0; i < s.members.size(); ++i) {
    const Member& member = s.members[i];
    job->devices.push_back({member.keys.client, member.keys.mask_key, member.self_seed});
    if (s.needed[i] == 0) continue;
    const std::size_t shares = (*s.revealed)[i].shares.size();
    if (shares < s.size.threshold) {
      return failed(fmt::format("{} of {} shares of device {}'s {} came", shares, s.size.threshold,
                                value_of(member.keys.client),
                                member.survivor ? "self mask's seed" : "mask key"));
    }
    UnmaskJob::State::Target target{i, member.survivor, {}};
    if (!member.survivor) {
      for (const std::uint32_t p : member.neighbours) {
        if (is_survivor(s.members[p])) target.peers.push_back(p);
      }
    }
    job->targets.push_back(std::move(target));
  }
  job->context = s.digest;
  job->cipher = s.context.settings.cipher;
  job->threshold = s.size.threshold;
  job->revealed = s.revealed;
  s.handed_out = true;
  return UnmaskJob(std::move(job));
}

std::string_view to_string(SecAggServer::Step step) {
  switch (step) {
    case SecAggServer::Step::kAdvertise:
      return "advertise";
    case SecAggServer::Step::kShare:
      return "share";
    case SecAggServer::Step::kMask:
      return "mask";
    case SecAggServer::Step::kConfirm:
      return "confirm";
    case SecAggServer::Step::kUnmask:
      return "unmask";
  }
  return "unknown";
}

}  // namespace covey::privacy
