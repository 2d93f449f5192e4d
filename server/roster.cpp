#include "roster.hpp"

#include <algorithm>
#include <covey/assert.hpp>

namespace covey::server {

Connection& Roster::add(const DeviceConnected& connected) {
  const auto [entry, is_new] = connections_.try_emplace(connected.connection);
  COVEY_ASSERT(is_new);
  Connection& connection = entry->second;
  connection.id = connected.connection;
  connection.client = connected.client;
  connection.role = connected.role;
  if (connected.role == Role::kDevice) {
    COVEY_ASSERT(devices_.try_emplace(connected.client, &connection).second);
  }
  return connection;
}

void Roster::remove(ConnectionId id) {
  const auto entry = connections_.find(id);
  if (entry == connections_.end()) return;
  leave_pool(entry->second);
  if (entry->second.role == Role::kDevice) devices_.erase(entry->second.client);
  connections_.erase(entry);
}

Connection* Roster::find(ConnectionId id) {
  const auto entry = connections_.find(id);
  return entry == connections_.end() ? nullptr : &entry->second;
}

Connection* Roster::find_device(ClientId client) {
  const auto entry = devices_.find(client);
  return entry == devices_.end() ? nullptr : entry->second;
}

const Connection* Roster::find_device(ClientId client) const {
  const auto entry = devices_.find(client);
  return entry == devices_.end() ? nullptr : entry->second;
}

void Roster::join_pool(Connection& connection, std::uint64_t num_examples) {
  if (connection.waiting()) {
    place_of(connection)[connection.pool_index].candidate.num_examples = num_examples;
    return;
  }
  connection.pool_index = pool_.size();
  pool_.push_back({{connection.client, num_examples}, &connection});
}

void Roster::leave_pool(Connection& connection) {
  if (!connection.waiting()) return;
  std::vector<Waiting>& place = place_of(connection);
  place[connection.pool_index] = place.back();
  place[connection.pool_index].connection->pool_index = connection.pool_index;
  place.pop_back();
  connection.pool_index = Connection::kNotWaiting;
  connection.resting = false;
}

void Roster::rest(Connection& connection) {
  COVEY_ASSERT(connection.waiting());
  if (connection.resting) return;
  const Waiting waiting = pool_[connection.pool_index];
  leave_pool(connection);
  connection.resting = true;
  connection.pool_index = resting_.size();
  resting_.push_back(waiting);
}

void Roster::wake() {
  for (const Waiting& waiting : resting_) {
    waiting.connection->resting = false;
    waiting.connection->pool_index = pool_.size();
    pool_.push_back(waiting);
  }
  resting_.clear();
}

std::vector<Candidate> Roster::candidates() const {
  std::vector<Candidate> candidates;
  candidates.reserve(pool_.size());
  for (const Waiting& waiting : pool_) candidates.push_back(waiting.candidate);
  return candidates;
}

std::vector<ConnectionId> Roster::connection_ids() const {
  std::vector<ConnectionId> ids;
  ids.reserve(connections_.size());
  for (const auto& [id, connection] : connections_) ids.push_back(id);
  std::ranges::sort(ids);
  return ids;
}

}  // namespace covey::server
