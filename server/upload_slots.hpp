#pragma once

#include <covey/bytes.hpp>
#include <covey/ids.hpp>
#include <covey/messages.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/time.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace covey::server {

/// An upload that holds a slot: which byte comes next and how far the device may send.
struct Upload {
  UploadKey key;
  std::uint64_t size = 0;                  ///< bytes of the whole
  std::uint64_t next = 0;                  ///< bytes held: the offset of the next chunk
  std::uint64_t granted_until = 0;         ///< the device may send below this
  Time last_chunk{};                       ///< or the grant that began it
  std::optional<ConnectionId> connection;  ///< where the report came from; none: it is gone
  bool opened = false;                     ///< OpenUpload was answered
  bool superseded = false;                 ///< before that, the device announced other content

  bool complete() const { return next == size; }
  /// Nothing: the chunk is the next one and within the grant. Otherwise what is wrong with it.
  std::optional<std::string> fault_of(const BlobChunk& chunk) const;
  /// Extends the grant to `window` bytes from `next`, at most to the end.
  UploadGrant grant(std::uint64_t window);
  /// Half of the window is used up and there is more to come.
  bool wants_grant(std::uint64_t window) const {
    return granted_until < size && granted_until - next <= window / 2;
  }
};

/// Who may upload now: at most `capacity` at a time, the others first come, first served. This
/// bounds the bytes on the wire to capacity * window; those received and not yet written are the
/// driver's. O(log queue). One thread at a time.
class UploadSlots {
 public:
  explicit UploadSlots(std::size_t capacity);

  void enqueue(ClientId client);
  void dequeue(ClientId client);
  /// The head of the queue, which holds a slot from now on; none: no slot free, or nobody waits.
  std::optional<ClientId> admit();

  Upload* find(ClientId client);
  void release(ClientId client);
  /// Nobody waits for this slot's OpenUpload any more. It stays taken until that is answered, while
  /// the device may get in line again for another upload.
  void abandon(ClientId client);
  /// That answer came: whether it was an abandoned slot's, which is free now.
  bool release_abandoned(const UploadKey& key);
  /// Slots whose device sent nothing since `moment`, though granted; sorted by client.
  std::vector<ClientId> stalled_since(Time moment) const;
  void clear();

  std::size_t active() const { return active_.size() + abandoned_.size(); }
  std::size_t queued() const { return queue_.size(); }

 private:
  std::size_t capacity_;
  std::uint64_t next_ticket_ = 0;
  std::map<std::uint64_t, ClientId> queue_;  // by ticket: arrival
  std::unordered_map<ClientId, std::uint64_t> tickets_;
  std::unordered_map<ClientId, Upload> active_;
  std::multiset<UploadKey> abandoned_;
};

}  // namespace covey::server
