#pragma once

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/server/round_coordinator.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cohort_selection.hpp"

namespace covey::server {

/// One live connection, as far as the rounds care.
struct Connection {
  static constexpr std::size_t kNotWaiting = SIZE_MAX;

  ConnectionId id{};
  ClientId client{};
  Role role = Role::kDevice;
  std::uint32_t variant = 0;             ///< of the plan that a device of its class is sent
  std::uint32_t compressor = 0;          ///< that it is asked for: a number of the plan's
  std::optional<Digest> held_model;      ///< as it said at its last check-in
  bool greeted = false;                  ///< a Hello was answered with Welcome
  std::size_t pool_index = kNotWaiting;  ///< its place among the waiting, or those who rest
  bool resting = false;                  ///< waits, but may not be drawn yet
  /// An upload whose slot was taken back while the device was sending: what is still in flight of
  /// it is nobody's fault and is ignored.
  std::optional<Digest> void_upload;

  bool waiting() const { return pool_index != kNotWaiting; }
};

/// Who is connected, which connection speaks for which device, and who waits to be selected. Every
/// operation on one connection is O(1). One thread at a time.
class Roster {
 public:
  /// The id is new, and a device has no other connection (the caller has closed it).
  Connection& add(const DeviceConnected& connected);
  void remove(ConnectionId id);

  Connection* find(ConnectionId id);
  /// The connection that speaks for a device. Operators are not devices.
  Connection* find_device(ClientId client);
  const Connection* find_device(ClientId client) const;

  void join_pool(Connection& connection, std::uint64_t num_examples);
  void leave_pool(Connection& connection);
  /// One that waits is not in the pool until `wake`.
  void rest(Connection& connection);
  void wake();

  std::size_t connections() const { return connections_.size(); }
  std::size_t pool_size() const { return pool_.size(); }
  std::size_t resting() const { return resting_.size(); }
  /// One of the pool, index < pool_size(). Who that is depends on who came and went in which order.
  Connection& pool_at(std::size_t index) { return *pool_[index].connection; }
  /// The pool, in no particular order. O(pool).
  std::vector<Candidate> candidates() const;
  /// Every connection in order of its id, so that a run's end replays alike. O(n log n).
  std::vector<ConnectionId> connection_ids() const;

 private:
  std::unordered_map<ConnectionId, Connection> connections_;  // nodes: pointers to values stay good
  std::unordered_map<ClientId, Connection*> devices_;
  struct Waiting {
    Candidate candidate;  // here and not behind the pointer: a draw reads the whole pool in a row
    Connection* connection = nullptr;
  };
  std::vector<Waiting>& place_of(const Connection& connection) {
    return connection.resting ? resting_ : pool_;
  }
  std::vector<Waiting> pool_;
  std::vector<Waiting> resting_;
};

}  // namespace covey::server
