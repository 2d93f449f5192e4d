#include "client/daemon/transfer_count.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace covey::client {
namespace {

/// A device works on one model and one update at a time; their predecessors may still be spoken of.
constexpr std::size_t kBlobsKnown = 4;

}  // namespace

TransferCount::Held& TransferCount::held(std::deque<Held>& blobs, const Digest& blob) {
  const auto found = std::find_if(blobs.begin(), blobs.end(),
                                  [&](const Held& known) { return known.blob == blob; });
  if (found != blobs.end()) return *found;
  if (blobs.size() == kBlobsKnown) blobs.pop_front();
  return blobs.emplace_back(Held{blob});
}

TransferCount& TransferCount::operator+=(const TransferCount& more) {
  const auto add = [](Direction& sum, const Direction& count) {
    sum.bytes += count.bytes;
    sum.bytes_below_resume += count.bytes_below_resume;
    sum.transfers_resumed += count.transfers_resumed;
  };
  add(download_, more.download_);
  add(upload_, more.upload_);
  lost_by_server_ += more.lost_by_server_;
  return *this;
}

void TransferCount::connected() {
  for (auto* blobs : {&models_, &updates_}) {
    for (Held& known : *blobs) known.seen = false;
  }
}

void TransferCount::sent(const ClientMessage& message) {
  if (const auto* request = std::get_if<BlobRequest>(&message)) {
    Held& model = held(models_, request->blob);
    if (!std::exchange(model.seen, true) && request->offset > 0) {
      ++download_.transfers_resumed;
      model.end = std::max(model.end, request->offset);  // what an earlier process has left on disk
    }
  } else if (const auto* chunk = std::get_if<BlobChunk>(&message)) {
    const Held& update = held(updates_, chunk->blob);
    upload_.bytes += chunk->payload.size();
    if (chunk->offset < update.end) {
      upload_.bytes_below_resume +=
          std::min<std::uint64_t>(update.end - chunk->offset, chunk->payload.size());
    }
  }
}

void TransferCount::received(const ServerMessage& message) {
  if (const auto* grant = std::get_if<UploadGrant>(&message)) {
    Held& update = held(updates_, grant->blob);
    const bool resumes = !std::exchange(update.seen, true);
    if (resumes && grant->offset > 0) ++upload_.transfers_resumed;
    if (resumes && grant->offset < update.end) lost_by_server_ += update.end - grant->offset;
    update.end = resumes ? grant->offset : std::max(update.end, grant->offset);
  } else if (const auto* chunk = std::get_if<BlobChunk>(&message)) {
    Held& model = held(models_, chunk->blob);
    const std::uint64_t size = chunk->payload.size();
    download_.bytes += size;
    if (chunk->offset < model.end) {
      download_.bytes_below_resume += std::min(model.end - chunk->offset, size);
    }
    if (chunk->offset <= model.end) model.end = std::max(model.end, chunk->offset + size);
  }
}

}  // namespace covey::client
