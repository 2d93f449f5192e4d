#include "fault_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/simulation/faults.hpp>
#include <utility>

namespace covey::simulation {
namespace {

// What a stream of the plan is for: the "round" of its name.
enum class Stream : std::uint32_t {
  kMessages = 1,
  kDamage = 2,
  kDevices = 3,
  kServers = 4,
  kCommits = 5,
  kDisk = 6,
  kRestarts = 7,
  kClocks = 8,
  kRates = 9,
};

RandomStream stream_of(std::uint64_t seed, Stream stream, ClientId client = {}) {
  return RandomStream(seed, RandomPurpose::kFault,
                      static_cast<RoundNumber>(static_cast<std::uint32_t>(stream)), client);
}

// An overtaken message, and the second of two, is so late at most: longer than a latency, shorter
// than what a device waits for an answer.
constexpr double kMostLag_s = 2;
// A phone starts again in half a minute or two; one whose battery is empty takes an hour.
// Log-uniform.
constexpr double kShortestReboot_s = 5, kLongestReboot_s = 3600;
// A server is started again by its init system at once, or by a person who has to be woken.
constexpr double kShortestDowntime_s = 1, kLongestDowntime_s = 1800;
// Bits that flip in a corrupted message: one mostly, which is the hardest to notice.
constexpr std::uint64_t kMostFlips = 8;

double log_uniform(RandomStream& random, double low, double high) {
  return std::exp(random.uniform(std::log(low), std::log(high)));
}

}  // namespace

FaultPlan::FaultPlan(const FaultConfig& config)
    : config_(config),
      messages_(stream_of(config.seed, Stream::kMessages)),
      damage_(stream_of(config.seed, Stream::kDamage)),
      devices_(stream_of(config.seed, Stream::kDevices)),
      servers_(stream_of(config.seed, Stream::kServers)),
      commits_(stream_of(config.seed, Stream::kCommits)),
      disk_(stream_of(config.seed, Stream::kDisk)),
      restarts_(stream_of(config.seed, Stream::kRestarts)) {}

bool FaultPlan::strikes(Time now, RoundNumber committed) const {
  if (!enabled()) return false;
  if (config_.until_s > 0 && seconds(now.time_since_epoch()) >= config_.until_s) return false;
  return config_.until_round == 0 || value_of(committed) < config_.until_round;
}

bool FaultPlan::lies() const {
  return enabled() && (config_.duplicate > 0 || config_.reorder > 0 || config_.truncate > 0 ||
                       config_.corrupt > 0);
}

MessageFate FaultPlan::message() {
  // Every message takes the same draws, whatever befalls it: rates can be changed one by one
  // without moving the other faults.
  const auto chance = [&](double rate) { return messages_.uniform() < rate; };
  MessageFate fate;
  fate.lost = chance(config_.drop);
  fate.twice = chance(config_.duplicate);
  fate.overtaken = chance(config_.reorder);
  fate.cut_behind = chance(config_.cut);
  const bool truncated = chance(config_.truncate), corrupted = chance(config_.corrupt);
  if (truncated) fate.damage = Damage::kTruncated;
  if (corrupted && !truncated) fate.damage = Damage::kCorrupted;
  const bool late = chance(config_.delay);
  const double delay = messages_.uniform(), lag = messages_.uniform();
  if (late) fate.delay = from_seconds(delay * config_.delay_s);
  fate.lag = from_seconds(lag * kMostLag_s);
  return fate;
}

void FaultPlan::damage(Damage kind, proto::Encoded& encoded) {
  const std::size_t size = encoded.size();
  if (kind == Damage::kNone || size == 0) return;
  if (kind == Damage::kTruncated) {
    const auto left = static_cast<std::size_t>(damage_.below(size));
    if (left < encoded.header.size()) {
      encoded.header.resize(left);
      encoded.payload = {};
    } else {
      encoded.payload = encoded.payload.slice(0, left - encoded.header.size());
    }
    return;
  }
  std::vector<std::byte> payload(encoded.payload.span().begin(), encoded.payload.span().end());
  const std::uint64_t flips = damage_.uniform() < 0.5 ? 1 : 1 + damage_.below(kMostFlips);
  for (std::uint64_t i = 0; i < flips; ++i) {
    // As often in the header as in the payload, which may be a thousand times longer.
    const bool in_header = payload.empty() || (!encoded.header.empty() && damage_.uniform() < 0.5);
    std::vector<std::byte>& bytes = in_header ? encoded.header : payload;
    const auto bit = damage_.below(8 * bytes.size());
    bytes[static_cast<std::size_t>(bit / 8)] ^= std::byte{1} << (bit % 8);
  }
  if (!payload.empty()) encoded.payload = SharedBytes(std::move(payload));
}

std::optional<DeviceDeath> FaultPlan::device_crash() {
  if (devices_.uniform() >= config_.device_crash) return std::nullopt;
  DeviceDeath death;
  death.after = from_seconds(devices_.uniform() * kMostLag_s);
  death.gone = from_seconds(log_uniform(devices_, kShortestReboot_s, kLongestReboot_s));
  death.noticed = devices_.uniform() < 0.5;
  return death;
}

std::optional<double> FaultPlan::server_crash() {
  if (servers_.uniform() >= config_.server_crash) return std::nullopt;
  return servers_.uniform();
}

CommitCrash FaultPlan::commit_crash() {
  if (commits_.uniform() >= config_.commit_crash) return CommitCrash::kNever;
  constexpr std::uint64_t kPlaces = 3;
  return static_cast<CommitCrash>(1 + commits_.below(kPlaces));
}

Duration FaultPlan::server_downtime() {
  return from_seconds(log_uniform(restarts_, kShortestDowntime_s, kLongestDowntime_s));
}

double FaultPlan::clock_rate(ClientId client) const {
  if (!enabled() || config_.clock_skew == 0) return 1;
  return 1 + config_.clock_skew * stream_of(config_.seed, Stream::kClocks, client).uniform(-1, 1);
}

FaultConfig faults_of_seed(std::uint64_t seed, const RunConfig& config) {
  FaultConfig faults;
  faults.seed = seed;
  faults.until_round = (config.num_rounds + 1) / 2;
  faults.until_s = faults.until_round *
                   (config.selection.selection_timeout_s + config.selection.round_deadline_s);
  RandomStream random = stream_of(seed, Stream::kRates);
  // Log-uniform: rare faults strike where nothing else is wrong, frequent ones on top of each
  // other. The highest rates leave rounds a fair chance: a device takes about ten messages for a
  // round.
  struct Kind {
    double FaultConfig::*rate;
    double low, high;
  };
  constexpr Kind kKinds[] = {
      {&FaultConfig::delay, 0.001, 0.3},
      {&FaultConfig::drop, 0.001, 0.1},
      {&FaultConfig::duplicate, 0.001, 0.2},
      {&FaultConfig::reorder, 0.001, 0.1},
      {&FaultConfig::truncate, 0.001, 0.1},
      {&FaultConfig::corrupt, 0.001, 0.1},
      {&FaultConfig::cut, 0.001, 0.1},
      {&FaultConfig::device_crash, 0.001, 0.1},
      {&FaultConfig::server_crash, 0.0003, 0.04},
      {&FaultConfig::commit_crash, 0.05, 0.7},
      {&FaultConfig::disk_full, 0.003, 0.3},
      {&FaultConfig::clock_skew, 0.01, 0.3},
  };
  bool any = false;
  while (!any) {
    for (const Kind& kind : kKinds) {
      const bool on = random.uniform() < 0.5;
      const double rate = log_uniform(random, kind.low, kind.high);
      faults.*kind.rate = on ? rate : 0;
      any |= on;
    }
  }
  faults.delay_s = log_uniform(random, 0.1, 120);
  return faults;
}

std::vector<std::string> fault_overrides(const FaultConfig& faults) {
  std::vector<std::string> overrides = {fmt::format("faults.seed={}", faults.seed)};
  const auto add = [&](std::string_view name, double value) {
    overrides.push_back(fmt::format("faults.{}={}", name, value));
  };
  add("until-s", faults.until_s);
  overrides.push_back(fmt::format("faults.until-round={}", faults.until_round));
  add("delay", faults.delay);
  if (faults.delay > 0) add("delay-s", faults.delay_s);
  add("drop", faults.drop);
  add("duplicate", faults.duplicate);
  add("reorder", faults.reorder);
  add("truncate", faults.truncate);
  add("corrupt", faults.corrupt);
  add("cut", faults.cut);
  add("device-crash", faults.device_crash);
  add("server-crash", faults.server_crash);
  add("commit-crash", faults.commit_crash);
  add("disk-full", faults.disk_full);
  add("clock-skew", faults.clock_skew);
  return overrides;
}

}  // namespace covey::simulation
