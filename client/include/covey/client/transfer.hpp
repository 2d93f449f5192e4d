#pragma once

#include <array>
#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

/// The two resumable transfers of a device, without IO: which bytes to ask for or to send next.
namespace covey::client {

/// Pulls one blob of known size and hash in pieces, in order, with up to kMaxOutstandingRequests
/// requests under way; survives any number of connections. Memory: the blob once, and nothing of
/// its own when one chunk covers it all. One thread at a time.
class BlobDownload {
 public:
  /// `size` in bytes, checked by the caller: as much memory is reserved with the first piece.
  BlobDownload(const Digest& blob, std::uint64_t size);
  /// Goes on behind `held`, the blob's first bytes, at most `size`; copied unless they are all.
  BlobDownload(const Digest& blob, std::uint64_t size, SharedBytes held);

  /// The next piece to ask for, `piece_bytes` at most; nothing while enough is under way.
  std::optional<BlobRequest> next_request(std::uint32_t piece_bytes);
  /// Takes the answer to the oldest request. Error, and nothing changes, if `chunk` does not answer
  /// it.
  Result<void> accept(const BlobChunk& chunk);
  /// The oldest request was answered otherwise (BlobMissing).
  void drop_oldest();
  /// Requests under way will not be answered any more; the next ones start behind the bytes held.
  void connection_lost();

  const Digest& blob() const { return blob_; }
  std::uint64_t size() const { return size_; }
  /// Bytes held, from the blob's start.
  std::uint64_t held() const { return held_; }
  std::uint32_t outstanding() const { return count_; }
  bool complete() const { return held_ == size_; }
  /// Once, when complete: the blob, or an error if its hash is another.
  Result<SharedBytes> finish();

 private:
  struct Piece {
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    bool wanted = true;  ///< false: an earlier answer was short, so this one leaves a gap
  };
  Piece pop();

  Digest blob_;
  std::uint64_t size_ = 0;
  std::uint64_t held_ = 0;
  std::uint64_t requested_ = 0;    ///< bytes below are held or under way
  std::uint32_t shortest_answer_;  ///< what the server was seen to give at most
  std::array<Piece, kMaxOutstandingRequests> pieces_{};  ///< oldest first
  std::uint32_t count_ = 0;
  std::vector<std::byte> assembled_;
  std::optional<SharedBytes> whole_;  ///< the one chunk that covered everything, uncopied
  std::optional<Sha256> hash_;        ///< of assembled_, as it grows
};

/// Sends one blob on one connection as far as the server grants, as slices of it. One thread at a
/// time.
class BlobUpload {
 public:
  BlobUpload(const Digest& blob, SharedBytes bytes);

  /// Error if the grant is for another blob or beyond its end.
  Result<void> grant(const UploadGrant& grant);
  /// The next granted bytes not sent on this connection, `max_bytes` (>= 1) at most.
  std::optional<BlobChunk> next_chunk(std::uint32_t max_bytes);
  /// Bytes sent that the server did not confirm to hold.
  std::uint64_t confirmed() const { return confirmed_; }
  std::uint64_t in_flight() const { return sent_ > confirmed_ ? sent_ - confirmed_ : 0; }

 private:
  Digest blob_;
  SharedBytes bytes_;
  std::uint64_t confirmed_ = 0;    ///< the server holds the bytes below
  std::uint64_t granted_end_ = 0;  ///< it takes the bytes below
  std::uint64_t sent_ = 0;         ///< sent on this connection, or held before it
};

}  // namespace covey::client
