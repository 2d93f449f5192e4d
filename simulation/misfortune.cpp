#include <covey/simulation/misfortune.hpp>

#include <variant>

namespace covey::simulation {

RandomStream misfortune(std::uint64_t seed, RandomPurpose purpose, RoundNumber round, ClientId client,
                        std::uint64_t attempt) {
  RandomStream random(seed, purpose, round, client);
  // Two 64-bit draws is what one task takes.
  for (std::uint64_t i = 0; i < 2 * attempt; ++i) random.next_u64();
  return random;
}

LeavesIn leaves_in(const RunConfig& config, RoundNumber round, ClientId client, std::uint64_t attempt) {
  const std::string& at = config.fleet.dropout_at;
  if (misfortune(config.seed, RandomPurpose::kDropout, round, client, attempt).uniform() >=
      config.fleet.dropout) {
    return LeavesIn::kNever;
  }
  if (at == "sharing") return LeavesIn::kSharing;
  if (at == "masking") return LeavesIn::kMasking;
  if (at == "unmasking") return LeavesIn::kUnmasking;
  if (at == "any") {
    RandomStream step = misfortune(config.seed, RandomPurpose::kFault, round, client, attempt);
    return static_cast<LeavesIn>(1 + step.below(4));
  }
  return LeavesIn::kTraining;
}

bool begins(LeavesIn step, const ServerMessage& message) {
  switch (step) {
    case LeavesIn::kTraining:
      return std::holds_alternative<Assignment>(message);
    case LeavesIn::kSharing:
      return std::holds_alternative<NeighbourKeys>(message);
    case LeavesIn::kMasking:
      return std::holds_alternative<PeerShares>(message);
    case LeavesIn::kUnmasking:
      return std::holds_alternative<SurvivorSet>(message);
    case LeavesIn::kNever:
      return false;
  }
  return false;
}

RoundNumber round_of(const ServerMessage& message) {
  if (const auto* assignment = std::get_if<Assignment>(&message)) return assignment->round;
  if (const auto* keys = std::get_if<NeighbourKeys>(&message)) return keys->round.round;
  if (const auto* shares = std::get_if<PeerShares>(&message)) return shares->round.round;
  if (const auto* survivors = std::get_if<SurvivorSet>(&message)) return survivors->round.round;
  return {};
}

}  // namespace covey::simulation
