#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/privacy/secagg_device.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <covey/random.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

/// Devices and a server of one secure sum, with the messages handed over as values.
namespace covey::privacy::testing {

inline SecureAggregationPlan plan_for(ThreatModel model, bool complete, std::uint32_t devices) {
  SecureAggregationPlan plan;
  plan.threat_model = model;
  plan.complete_graph = complete;
  plan.max_weight = 1;
  plan.max_devices = devices;
  return plan;
}

inline Digest digest_named(std::string_view name) {
  return sha256(std::as_bytes(std::span(name.data(), name.size())));
}

inline AggregationContext context_for(const SecureAggregationPlan& plan, std::uint32_t round = 1) {
  AggregationContext context;
  context.round.run = static_cast<RunId>(77);
  context.round.round = static_cast<RoundNumber>(round);
  context.round.id.bytes.fill(static_cast<std::uint8_t>(round));
  context.model = digest_named("model");
  context.plan = digest_named("plan");
  context.settings = plan;
  return context;
}

struct World {
  AggregationContext context;
  std::uint64_t seed = 0;
  PackedFormat format;
  std::optional<IdentityAuthority> authority;
  std::map<ClientId, std::shared_ptr<const DeviceCredentials>> credentials;
  std::map<ClientId, SecAggDevice> devices;
  std::map<ClientId, std::vector<std::byte>> contributions;  ///< packed
  std::optional<SecAggServer> server;
  std::vector<std::uint64_t> masked_sum;
  std::vector<std::uint64_t> plain_sum;  ///< of the same devices
  std::set<ClientId> masked;

  bool malicious_server() const {
    return context.settings.threat_model == ThreatModel::kMaliciousServer;
  }
  std::vector<ClientId> clients() const {
    std::vector<ClientId> ids;
    for (const auto& entry : devices) ids.push_back(entry.first);
    return ids;
  }
  SecAggDevice& device(ClientId client) { return devices.at(client); }

  Result<SecAggDevice> make_device(ClientId client, const AggregationContext& its_context,
                                   std::uint64_t stream = 0) const {
    SecAggDevice::Options options;
    options.client = client;
    options.context = its_context;
    if (credentials.contains(client)) options.credentials = credentials.at(client);
    options.secrets = seeded_secrets(seed, its_context.round.round, client, stream);
    return SecAggDevice::make(std::move(options));
  }

  /// Adds the masked input of a device to the sum, as a server would.
  void add_masked(ClientId client, const MaskJob& job) {
    const auto masked_input = job.run(format, contributions.at(client)).value();
    add_packed(format, masked_input.span(), masked_sum);
    add_packed(format, contributions.at(client), plain_sum);
    masked.insert(client);
    server->add_masked_input(client);
  }
};

struct WorldOptions {
  ThreatModel model = ThreatModel::kHonestButCurious;
  bool complete = false;
  MaskCipher cipher = MaskCipher::kAes128Ctr;
  std::uint32_t devices = 5;
  std::size_t coordinates = 20;
  std::uint32_t sum_bits = 22;
  std::uint64_t seed = 1;
  double dropout = 0.1;
  double corruption = 0.05;
};

inline World make_world(const WorldOptions& options) {
  World world;
  auto plan = plan_for(options.model, options.complete, options.devices);
  plan.cipher = options.cipher;
  plan.dropout = options.dropout;
  plan.corruption = options.corruption;
  world.context = context_for(plan);
  world.seed = options.seed;
  world.format = {options.sum_bits, options.coordinates};
  world.masked_sum.assign(world.format.words(), 0);
  world.plain_sum.assign(world.format.words(), 0);
  RandomStream random(options.seed, RandomPurpose::kFault, static_cast<RoundNumber>(1));
  auto secrets = seeded_secrets(options.seed, {}, {}, 99);
  if (world.malicious_server()) world.authority = IdentityAuthority::make(*secrets).value();
  std::uint64_t id = random.below(1000);
  for (std::uint32_t i = 0; i < options.devices; ++i) {
    const auto client = static_cast<ClientId>(id);
    id += 1 + random.below(i % 3 == 0 ? 1'000'000'000'000 : 3);
    if (world.authority.has_value()) {
      world.credentials[client] = std::make_shared<const DeviceCredentials>(
          world.authority->issue(client, *secrets).value());
    }
    world.devices.emplace(client, world.make_device(client, world.context).value());
    std::vector<std::int64_t> values(options.coordinates);
    // So that the sum of all stays below 2^m.
    const std::uint64_t bound = (std::uint64_t{1} << options.sum_bits) / options.devices;
    for (auto& value : values) value = static_cast<std::int64_t>(random.below(bound));
    std::vector<std::uint64_t> words(world.format.words());
    pack(world.format, values, words);
    const auto bytes = std::as_bytes(std::span(words));
    world.contributions[client] = {bytes.begin(), bytes.end()};
  }
  std::optional<AuthorityKey> authority;
  if (world.authority.has_value()) authority = world.credentials.begin()->second->authority;
  world.server.emplace(world.context, authority);
  return world;
}

// ---- one step each, for all devices (or those named), none failing; for tests of a single misdeed

inline void advertise_all(World& world) {
  for (auto& [client, device] : world.devices) {
    world.server->add(client, device.advertise()).ok();
  }
}

inline Result<void> share_all(World& world) {
  for (auto& [client, device] : world.devices) {
    COVEY_ASSIGN(const auto answer, device.take(world.server->neighbour_keys(client).value()));
    COVEY_TRY(world.server->add(client, answer));
  }
  return {};
}

inline Result<void> mask_all(World& world, const std::set<ClientId>& except = {}) {
  for (auto& [client, device] : world.devices) {
    if (except.contains(client)) continue;
    COVEY_ASSIGN(const auto job, device.take(world.server->peer_shares(client).value()));
    world.add_masked(client, *job);
  }
  return {};
}

inline Result<void> confirm_all(World& world) {
  for (const ClientId client : world.masked) {
    COVEY_ASSIGN(const auto answer,
                 world.device(client).take(world.server->survivor_set(client).value()));
    COVEY_TRY(world.server->add(client, std::get<ConfirmSurvivors>(answer)));
  }
  return {};
}

/// What a survivor reveals, honestly.
inline Result<Unmask> revealed_by(World& world, ClientId client) {
  if (world.malicious_server()) {
    return world.device(client).take(world.server->confirmations(client).value());
  }
  COVEY_ASSIGN(auto answer, world.device(client).take(world.server->survivor_set(client).value()));
  return std::get<Unmask>(answer);
}

inline Result<void> unmask_all(World& world) {
  for (const ClientId client : world.masked) {
    COVEY_ASSIGN(const auto answer, revealed_by(world, client));
    COVEY_TRY(world.server->add(client, answer));
  }
  return {};
}

/// Through the steps before `step`, all honest.
inline Result<void> run_until(World& world, SecAggServer::Step step,
                              const std::set<ClientId>& drop_after_sharing = {}) {
  using Step = SecAggServer::Step;
  if (step == Step::kAdvertise) return {};
  advertise_all(world);
  COVEY_TRY(world.server->close_step());
  if (step == Step::kShare) return {};
  COVEY_TRY(share_all(world));
  COVEY_TRY(world.server->close_step());
  if (step == Step::kMask) return {};
  COVEY_TRY(mask_all(world, drop_after_sharing));
  COVEY_TRY(world.server->close_step());
  if (step == Step::kConfirm || !world.malicious_server()) return {};
  COVEY_TRY(confirm_all(world));
  return world.server->close_step();
}

inline Result<UnmaskJob::Figures> unmask_sum(World& world, unsigned threads = 1,
                                             std::optional<ClientId>* culprit = nullptr) {
  COVEY_ASSIGN(const auto job, world.server->unmask());
  return job.run(world.format, world.masked_sum, threads, culprit);
}

inline bool blames(const std::vector<Fault>& faults, ClientId client) {
  return std::any_of(faults.begin(), faults.end(),
                     [&](const Fault& fault) { return fault.client == client; });
}

inline ClientId nth(const World& world, std::size_t index) { return world.clients().at(index); }

inline std::string name_of(ClientId client) { return "device " + std::to_string(value_of(client)); }

/// Why something was refused, which it has to be.
template <typename T>
std::string refusal(const Result<T>& result) {
  REQUIRE_FALSE(result.ok());
  return result.error().message;
}

}  // namespace covey::privacy::testing
