#pragma once

#include <covey/digest.hpp>
#include <covey/messages.hpp>
#include <cstdint>
#include <deque>

namespace covey::client {

/// Payload that a device's connections carried, and how much of it lay below the byte from which a
/// transfer was to go on: read off the messages, apart from what decides on them. One thread at a
/// time.
class TransferCount {
 public:
  struct Direction {
    /// Received, or handed to a connection: what was queued when it broke counts and never left.
    std::uint64_t bytes = 0;
    /// Of them, below what the receiving end was known to hold already: sent for nothing.
    std::uint64_t bytes_below_resume = 0;
    std::uint64_t transfers_resumed = 0;  ///< behind the blob's first byte, on a new connection
  };

  void connected();
  void sent(const ClientMessage& message);
  void received(const ServerMessage& message);

  const Direction& download() const { return download_; }
  const Direction& upload() const { return upload_; }
  /// What another process' or device's connections carried comes on top.
  TransferCount& operator+=(const TransferCount& more);
  /// Of updates, which a server that came back did not have any more although it had granted what
  /// follows them: they are sent again, and not counted as below where it asks to go on.
  std::uint64_t upload_bytes_lost_by_server() const { return lost_by_server_; }

 private:
  /// The receiving end holds the blob's bytes below `end`.
  struct Held {
    Digest blob;
    std::uint64_t end = 0;
    bool seen = false;  ///< on this connection
  };
  Held& held(std::deque<Held>& blobs, const Digest& blob);

  Direction download_, upload_;
  std::deque<Held> models_, updates_;  ///< the last few of each, the latest last
  std::uint64_t lost_by_server_ = 0;
};

}  // namespace covey::client
