#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/client/transfer.hpp>

namespace covey::client {
namespace {

/// A server that answers shorter than asked is asked for no more than it gives, but at least for
/// this: fewer bytes per request than 4 KiB would drown the link in frames.
constexpr std::uint32_t kSmallestPiece = 4 * 1024;

}  // namespace

BlobDownload::BlobDownload(const Digest& blob, std::uint64_t size)
    : blob_(blob), size_(size), shortest_answer_(UINT32_MAX) {}

BlobDownload::BlobDownload(const Digest& blob, std::uint64_t size, SharedBytes held)
    : BlobDownload(blob, size) {
  COVEY_ASSERT(held.size() <= size);
  held_ = requested_ = held.size();
  if (held_ == size_) {
    whole_ = std::move(held);
  } else if (held_ > 0) {
    assembled_.reserve(static_cast<std::size_t>(size_));
    assembled_.assign(held.span().begin(), held.span().end());
    hash_.emplace().update(assembled_);
  }
}

std::optional<BlobRequest> BlobDownload::next_request(std::uint32_t piece_bytes) {
  if (count_ == kMaxOutstandingRequests || requested_ == size_) return std::nullopt;
  const std::uint64_t piece = std::min(piece_bytes, std::max(shortest_answer_, kSmallestPiece));
  const auto length = static_cast<std::uint32_t>(std::min(piece, size_ - requested_));
  COVEY_ASSERT(length > 0);
  pieces_[count_++] = Piece{requested_, length, true};
  const BlobRequest request{blob_, requested_, length};
  requested_ += length;
  return request;
}

BlobDownload::Piece BlobDownload::pop() {
  const Piece piece = pieces_.front();
  std::shift_left(pieces_.begin(), pieces_.begin() + count_, 1);
  --count_;
  return piece;
}

Result<void> BlobDownload::accept(const BlobChunk& chunk) {
  if (chunk.blob != blob_)
    return malformed("a chunk of blob " + chunk.blob.hex() + " came, not of " + blob_.hex());
  if (count_ == 0) return malformed("a chunk came that was not asked for");
  const Piece& expected = pieces_.front();
  if (chunk.offset != expected.offset) {
    return malformed(fmt::format("a chunk at offset {} came where {} was asked for", chunk.offset,
                                 expected.offset));
  }
  if (chunk.payload.empty() || chunk.payload.size() > expected.length) {
    return malformed(fmt::format("a chunk of {} bytes came where {} were asked for",
                                 chunk.payload.size(), expected.length));
  }
  // Each costs a line of the journal and a write, however little it brings.
  if (chunk.payload.size() < std::min(kSmallestPiece, expected.length)) {
    return malformed(fmt::format("a chunk of {} bytes came where {} were asked for: too few",
                                 chunk.payload.size(), expected.length));
  }
  const Piece piece = pop();
  if (!piece.wanted) return {};
  const auto length = static_cast<std::uint32_t>(chunk.payload.size());
  held_ += length;
  if (length == size_) {
    whole_ = chunk.payload;
    return {};
  }
  if (assembled_.capacity() == 0) assembled_.reserve(static_cast<std::size_t>(size_));
  const auto bytes = chunk.payload.span();
  assembled_.insert(assembled_.end(), bytes.begin(), bytes.end());
  if (!hash_) hash_.emplace();
  hash_->update(bytes);
  if (length < piece.length) {  // a gap: what is under way does not follow on, ask again behind it
    shortest_answer_ = length;
    requested_ = held_;
    for (std::uint32_t i = 0; i < count_; ++i) pieces_[i].wanted = false;
  }
  return {};
}

void BlobDownload::drop_oldest() {
  if (count_ > 0) pop();
}

void BlobDownload::connection_lost() {
  count_ = 0;
  requested_ = held_;
}

Result<SharedBytes> BlobDownload::finish() {
  COVEY_ASSERT(complete());
  // Neither: a blob of no bytes.
  const Digest digest = whole_ ? whole_->digest() : hash_ ? hash_->finish() : sha256({});
  if (digest != blob_)
    return malformed("the bytes of blob " + blob_.hex() + " have the hash " + digest.hex());
  return whole_ ? std::move(*whole_) : SharedBytes(std::move(assembled_));
}

BlobUpload::BlobUpload(const Digest& blob, SharedBytes bytes)
    : blob_(blob), bytes_(std::move(bytes)) {}

Result<void> BlobUpload::grant(const UploadGrant& grant) {
  if (grant.blob != blob_)
    return malformed("an upload of " + grant.blob.hex() + " was granted, not of " + blob_.hex());
  const std::uint64_t size = bytes_.size();
  if (grant.offset > size) {
    return malformed(
        fmt::format("the server claims to hold {} bytes of an update of {}", grant.offset, size));
  }
  confirmed_ = std::max(confirmed_, grant.offset);
  granted_end_ = std::max(granted_end_, std::min<std::uint64_t>(grant.offset + grant.window, size));
  sent_ = std::max(sent_, grant.offset);
  return {};
}

std::optional<BlobChunk> BlobUpload::next_chunk(std::uint32_t max_bytes) {
  if (sent_ >= granted_end_) return std::nullopt;
  const std::uint64_t length = std::min<std::uint64_t>(max_bytes, granted_end_ - sent_);
  BlobChunk chunk{blob_, sent_, bytes_.slice(static_cast<std::size_t>(sent_), static_cast<std::size_t>(length))};
  sent_ += length;
  return chunk;
}

}  // namespace covey::client
