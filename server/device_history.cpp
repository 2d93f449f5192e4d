#include "device_history.hpp"

#include <algorithm>
#include <cmath>

namespace covey::server {

double DeviceRecord::discounted(double figure) const {
  return std::ldexp(figure, figure > 0 ? -misses : misses);  // below zero, less is worth less
}

double DeviceRecord::statistical_utility() const {
  // A loss below zero (of an objective that has such) says that nothing is left to learn.
  return has_loss()
             ? static_cast<double>(num_examples) * std::max(0.0, static_cast<double>(train_loss))
             : 0;
}

DeviceHistory::DeviceHistory(Limits limits, const Past& past) : limits_(limits) {
  for (const auto& [client, count] : past.participations) {
    records_[client].participations = count;
    if (exhausted(records_[client])) ++exhausted_;
  }
  std::map<std::uint32_t, std::size_t> rests;
  for (const auto& [client, round] : past.last_rounds) {
    DeviceRecord& record = records_[client];
    record.last_round = value_of(round);
    const bool rests_still = rounds_to_rest(client, next(past.committed)) > 0;
    if (rests_still && !exhausted(record)) ++rests[record.last_round];
  }
  for (const auto& [round, count] : rests) resting_ += count;
  rests_.assign(rests.begin(), rests.end());
}

bool DeviceHistory::exhausted(const DeviceRecord& record) const {
  return limits_.max_participations > 0 && record.participations >= limits_.max_participations;
}

void DeviceHistory::seen_until(DeviceRecord& record, std::uint32_t round) {
  if (round <= record.last_seen) return;
  record.rounds_seen += record.here ? round - record.last_seen : 1;
  record.last_seen = round;
}

void DeviceHistory::arrived(ClientId client, RoundNumber round) {
  DeviceRecord& record = records_[client];
  seen_until(record, value_of(round));
  record.here = true;
}

void DeviceHistory::left(ClientId client, RoundNumber round) {
  const auto found = records_.find(client);
  if (found == records_.end() || !found->second.here) return;
  seen_until(found->second, value_of(round));
  found->second.here = false;
}

void DeviceHistory::reported(ClientId client, RoundNumber round, const Report& report,
                             Duration took) {
  DeviceRecord& record = records_[client];
  record.last_tried = value_of(round);
  record.misses = 0;
  const auto loss = static_cast<float>(report.train_loss);
  if (std::isfinite(loss)) record.train_loss = loss;
  record.num_examples =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(report.num_examples, UINT32_MAX));
  record.duration_s = static_cast<float>(seconds(took));
}

void DeviceHistory::missed(ClientId client, RoundNumber round, Duration waited) {
  DeviceRecord& record = records_[client];
  record.last_tried = value_of(round);
  if (record.misses < UINT8_MAX) ++record.misses;
  record.duration_s = std::max(record.duration_s, static_cast<float>(seconds(waited)));
}

void DeviceHistory::participated(ClientId client, RoundNumber round) {
  DeviceRecord& record = records_[client];
  const std::uint32_t now = value_of(round);
  record.last_round = now;
  ++record.participations;
  if (exhausted(record)) {
    if (record.participations == limits_.max_participations) ++exhausted_;
  } else if (limits_.min_rounds_between > 0) {
    if (rests_.empty() || rests_.back().first != now) rests_.emplace_back(now, 0);
    ++rests_.back().second;
    ++resting_;
  }
  // Sent away to rest, it is not less available for that.
  if (limits_.min_rounds_between > 0 && record.here) {
    const std::uint32_t rest = std::min(limits_.min_rounds_between, UINT32_MAX - now);
    seen_until(record, now + rest);
  }
}

void DeviceHistory::begin_round(RoundNumber round) {
  while (!rests_.empty() && value_of(round) - rests_.front().first > limits_.min_rounds_between) {
    resting_ -= rests_.front().second;
    rests_.pop_front();
  }
}

const DeviceRecord* DeviceHistory::find(ClientId client) const {
  const auto found = records_.find(client);
  return found == records_.end() ? nullptr : &found->second;
}

std::uint32_t DeviceHistory::rounds_available(ClientId client, RoundNumber round) const {
  const DeviceRecord* record = find(client);
  if (record == nullptr) return 0;
  const bool since = record->here && value_of(round) > record->last_seen;
  return record->rounds_seen + (since ? value_of(round) - record->last_seen : 0);
}

DeviceHistory::Standing DeviceHistory::standing(ClientId client, RoundNumber round) const {
  if (!limits_.any()) return Standing::kFree;
  const DeviceRecord* record = find(client);
  if (record == nullptr) return Standing::kFree;
  if (exhausted(*record)) return Standing::kExhausted;
  return rounds_to_rest(client, round) > 0 ? Standing::kResting : Standing::kFree;
}

std::uint32_t DeviceHistory::rounds_to_rest(ClientId client, RoundNumber round) const {
  const DeviceRecord* record = find(client);
  if (record == nullptr || record->last_round == 0 || limits_.min_rounds_between == 0) return 0;
  const std::uint64_t first_free =
      std::uint64_t{record->last_round} + limits_.min_rounds_between + 1;
  return first_free <= value_of(round) ? 0
                                       : static_cast<std::uint32_t>(first_free - value_of(round));
}

}  // namespace covey::server
