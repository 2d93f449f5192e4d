// Sums equal plain sums exactly, or are abandoned with a sentence: over seeded random schedules.

#include <catch2/catch.hpp>

#include "secagg_world.hpp"

using namespace covey;
using namespace covey::privacy;
using namespace covey::privacy::testing;

namespace {

using Step = SecAggServer::Step;

struct Schedule {
  double drop = 0;      ///< chance that a device vanishes in a step, before or behind its answer
  double repeat = 0.2;  ///< that a message arrives twice, on either side
};

struct Outcome {
  bool finished = false;
  std::string why;  ///< abandoned
  Step abandoned_in = Step::kAdvertise;
  std::size_t alive = 0;  ///< of the devices, at the end of that step
  std::size_t survivors = 0;
};

/// Plays one sum: in each step devices answer in random order, some twice, some never again.
class Play {
 public:
  Play(World& world, const Schedule& schedule)
      : world_(world),
        schedule_(schedule),
        random_(world.seed, RandomPurpose::kFault, static_cast<RoundNumber>(2)) {}

  Outcome run() {
    alive_ = world_.clients();
    for (Step step = Step::kAdvertise;; step = world_.server->step()) {
      REQUIRE(world_.server->step() == step);
      play(step);
      if (step == Step::kUnmask) break;
      const auto closed = world_.server->close_step();
      if (!closed.ok()) return abandoned(step, closed.error().message);
      REQUIRE(world_.server->step() > step);
    }
    const auto finished = world_.server->close_step();
    CHECK(finished.ok() == world_.server->can_unmask());
    if (!finished.ok()) return abandoned(Step::kUnmask, finished.error().message);
    const auto figures = unmask_sum(world_, 1 + static_cast<unsigned>(random_.below(2)));
    REQUIRE(figures.ok());
    CHECK(world_.masked_sum == world_.plain_sum);
    CHECK(world_.server->survivors() == world_.masked.size());
    CHECK(world_.server->faults().empty());
    return {true, "", Step::kUnmask, alive_.size(), world_.masked.size()};
  }

 private:
  Outcome abandoned(Step step, const std::string& why) {
    CHECK_FALSE(why.empty());
    return {false, why, step, alive_.size(), world_.masked.size()};
  }

  void play(Step step) {
    random_.shuffle(std::span(alive_));
    std::vector<ClientId> stay;
    for (const ClientId client : alive_) {
      const bool drops = random_.uniform() < schedule_.drop;
      // Half of those that vanish do so behind their answer, which then counts.
      const bool answers = !drops || random_.below(2) == 0;
      if (answers) answer(step, client);
      if (answers && repeats()) answer(step, client);
      if (drops) {
        if (random_.below(2) == 0) world_.server->leave(client);
      } else {
        stay.push_back(client);
        CHECK_FALSE(world_.server->awaits(client));
      }
    }
    alive_ = std::move(stay);
  }

  bool repeats() { return random_.uniform() < schedule_.repeat; }

  void answer(Step step, ClientId client) {
    SecAggServer& server = *world_.server;
    SecAggDevice& device = world_.device(client);
    switch (step) {
      case Step::kAdvertise:
        REQUIRE(server.add(client, device.advertise()).ok());
        CHECK(server.advertised(client));
        return;
      case Step::kShare: {
        const auto message = server.neighbour_keys(client);
        if (!message.has_value()) return;  // it left before the directory was made
        if (repeats()) REQUIRE(server.add(client, device.advertise()).ok());
        const auto shares = device.take(*message);
        REQUIRE(shares.ok());
        REQUIRE(server.add(client, *shares).ok());
        earlier_[client].neighbour_keys = *message;
        earlier_[client].share_keys = *shares;
        return;
      }
      case Step::kMask: {
        const auto message = server.peer_shares(client);
        if (!message.has_value()) return;
        if (repeats()) {  // a late echo of the step before, on both sides
          CHECK(device.take(earlier_[client].neighbour_keys).value() ==
                earlier_[client].share_keys);
          CHECK(server.add(client, earlier_[client].share_keys).ok());
        }
        const auto job = device.take(*message);
        REQUIRE(job.ok());
        if (!world_.masked.contains(client)) {
          world_.add_masked(client, **job);
        } else {
          server.add_masked_input(client);
        }
        return;
      }
      case Step::kConfirm:
      case Step::kUnmask:
        return end(step, client);
    }
  }

  void end(Step step, ClientId client) {
    SecAggServer& server = *world_.server;
    SecAggDevice& device = world_.device(client);
    const auto message = server.survivor_set(client);
    if (!message.has_value()) {
      CHECK_FALSE(server.awaits(client));
      return;
    }
    const auto answer = device.take(*message);
    REQUIRE(answer.ok());
    if (const auto* unmask = std::get_if<Unmask>(&*answer)) {
      REQUIRE_FALSE(world_.malicious_server());
      REQUIRE(server.add(client, *unmask).ok());
      return;
    }
    REQUIRE(server.add(client, std::get<ConfirmSurvivors>(*answer)).ok());
    if (step == Step::kConfirm) return;
    const auto confirmations = server.confirmations(client);
    if (!confirmations.has_value()) {
      CHECK_FALSE(server.awaits(client));
      return;
    }
    const auto unmask = device.take(*confirmations);
    REQUIRE(unmask.ok());
    REQUIRE(server.add(client, *unmask).ok());
  }

  struct Earlier {
    NeighbourKeys neighbour_keys;
    ShareKeys share_keys;
  };

  World& world_;
  Schedule schedule_;
  RandomStream random_;
  std::vector<ClientId> alive_;
  std::map<ClientId, Earlier> earlier_;
};

Outcome play(const WorldOptions& options, const Schedule& schedule) {
  INFO("seed " << options.seed << ", n " << options.devices << ", d " << options.coordinates
               << ", m " << options.sum_bits << ", drop " << schedule.drop << ", complete "
               << options.complete);
  World world = make_world(options);
  return Play(world, schedule).run();
}

/// A random world of [2, most] devices. Large ones are rare: the work grows with n^2.
WorldOptions random_options(std::uint64_t seed, ThreatModel model, std::uint32_t most) {
  RandomStream random(seed, RandomPurpose::kFault);
  WorldOptions options;
  options.model = model;
  options.seed = seed;
  options.devices = 2 + static_cast<std::uint32_t>(random.below(7));
  if (seed % 25 == 0) options.devices = 2 + static_cast<std::uint32_t>(random.below(most - 1));
  options.complete = random.below(2) == 0;
  options.cipher = random.below(4) == 0 ? MaskCipher::kChaCha20 : MaskCipher::kAes128Ctr;
  options.coordinates = 1 + random.below(random.below(2) == 0 ? 8 : 2000);
  options.sum_bits = 8 + static_cast<std::uint32_t>(random.below(40));
  return options;
}

}  // namespace

TEST_CASE("an honest-but-curious server gets the plain sum over random schedules") {
  std::size_t finished = 0;
  constexpr std::uint64_t kSchedules = 500;
  for (std::uint64_t seed = 1; seed <= kSchedules; ++seed) {
    const auto options = random_options(seed, ThreatModel::kHonestButCurious, 60);
    const double drop = static_cast<double>(seed % 7) * 0.05;  // 0 to 30 % at every step
    finished += play(options, {drop, 0.2}).finished;
  }
  INFO(finished << " of " << kSchedules << " finished");
  CHECK(finished > kSchedules / 3);
  CHECK(finished < kSchedules);
}

TEST_CASE("a malicious server's protocol gives the plain sum over random schedules") {
  std::size_t finished = 0;
  constexpr std::uint64_t kSchedules = 150;
  for (std::uint64_t seed = 1001; seed <= 1000 + kSchedules; ++seed) {
    auto options = random_options(seed, ThreatModel::kMaliciousServer, 24);
    options.corruption = 0.01;  // else small rounds cannot be had
    const double drop = static_cast<double>(seed % 5) * 0.04;
    finished += play(options, {drop, 0.2}).finished;
  }
  INFO(finished << " of " << kSchedules << " finished");
  CHECK(finished > kSchedules / 4);
  CHECK(finished < kSchedules);
}

TEST_CASE("in a complete graph a sum is abandoned exactly when fewer than t are left") {
  for (std::uint64_t seed = 2001; seed <= 2120; ++seed) {
    auto options = random_options(seed, ThreatModel::kHonestButCurious, 12);
    options.complete = true;
    World world = make_world(options);
    INFO("seed " << seed << ", n " << options.devices);
    RandomStream random(seed, RandomPurpose::kFault, static_cast<RoundNumber>(3));
    advertise_all(world);
    REQUIRE(world.server->close_step().ok());
    const std::size_t t = world.server->neighbourhood().threshold;
    std::size_t left = options.devices;
    std::set<ClientId> gone;
    const auto lose_some = [&] {
      for (const ClientId client : world.clients()) {
        if (random.uniform() < 0.2 && gone.insert(client).second) --left;
      }
    };
    lose_some();
    for (auto& [client, device] : world.devices) {
      if (gone.contains(client)) continue;
      REQUIRE(world.server->add(client, device.take(*world.server->neighbour_keys(client)).value())
                  .ok());
    }
    REQUIRE(world.server->close_step().ok() == (left >= t));
    if (left < t) continue;
    lose_some();
    REQUIRE(mask_all(world, gone).ok());
    REQUIRE(world.server->close_step().ok() == (left >= t));
    if (left < t) continue;
    lose_some();
    for (const ClientId client : world.masked) {
      if (gone.contains(client)) continue;
      REQUIRE(world.server->add(client, revealed_by(world, client).value()).ok());
    }
    REQUIRE(world.server->can_unmask() == (left >= t));
    const auto figures = unmask_sum(world);
    REQUIRE(figures.ok() == (left >= t));
    if (left >= t) CHECK(world.masked_sum == world.plain_sum);
  }
}

TEST_CASE("larger sums are exact too, with every tenth device lost behind sharing its keys") {
  struct Size {
    std::uint32_t devices;
    std::size_t coordinates;
    ThreatModel model;
  };
  for (const auto& [devices, coordinates, model] :
       {Size{200, 3, ThreatModel::kHonestButCurious}, Size{60, 70, ThreatModel::kMaliciousServer},
        Size{1000, 1, ThreatModel::kHonestButCurious},
        Size{4, 1'000'000, ThreatModel::kHonestButCurious}}) {
    INFO("n " << devices << ", d " << coordinates);
    WorldOptions options;
    options.devices = devices;
    options.coordinates = coordinates;
    options.model = model;
    options.corruption = 0.01;
    World world = make_world(options);
    std::set<ClientId> lost;
    for (const ClientId client : world.clients()) {
      if (lost.size() < devices / 10) lost.insert(client);
    }
    REQUIRE(run_until(world, Step::kUnmask, lost).ok());
    REQUIRE(unmask_all(world).ok());
    REQUIRE(world.server->can_unmask());
    CHECK(world.server->awaited() == 0);
    CHECK(world.masked_sum != world.plain_sum);
    const auto figures = unmask_sum(world, 2);
    REQUIRE(figures.ok());
    CHECK(world.masked_sum == world.plain_sum);
    CHECK((figures->key_agreements > 0) == (devices >= 10));
    CHECK(figures->keystream_bytes >= world.format.bytes() * world.masked.size());
  }
}
