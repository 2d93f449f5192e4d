#include "upload_slots.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>

namespace covey::server {

std::optional<std::string> Upload::fault_of(const BlobChunk& chunk) const {
  if (chunk.blob != key.blob) {
    return fmt::format("a chunk of {}, but {} was granted", chunk.blob.hex(), key.blob.hex());
  }
  if (chunk.payload.empty()) return "an empty chunk";
  if (chunk.offset != next) {
    return fmt::format("a chunk at offset {}, but {} is next", chunk.offset, next);
  }
  if (chunk.payload.size() > granted_until - next) {
    return fmt::format("a chunk of {} bytes at offset {}, but the grant ends at {}",
                       chunk.payload.size(), chunk.offset, granted_until);
  }
  return std::nullopt;
}

UploadGrant Upload::grant(std::uint64_t window) {
  const std::uint64_t length = std::min(window, size - next);
  granted_until = next + length;
  return {key.blob, next, static_cast<std::uint32_t>(length)};
}

UploadSlots::UploadSlots(std::size_t capacity) : capacity_(std::max<std::size_t>(capacity, 1)) {}

void UploadSlots::enqueue(ClientId client) {
  COVEY_ASSERT(tickets_.try_emplace(client, next_ticket_).second);
  queue_.emplace(next_ticket_++, client);
}

void UploadSlots::dequeue(ClientId client) {
  const auto ticket = tickets_.find(client);
  if (ticket == tickets_.end()) return;
  queue_.erase(ticket->second);
  tickets_.erase(ticket);
}

std::optional<ClientId> UploadSlots::admit() {
  if (queue_.empty() || active() >= capacity_) return std::nullopt;
  const ClientId client = queue_.begin()->second;
  dequeue(client);
  COVEY_ASSERT(active_.try_emplace(client).second);
  return client;
}

Upload* UploadSlots::find(ClientId client) {
  const auto found = active_.find(client);
  return found == active_.end() ? nullptr : &found->second;
}

void UploadSlots::release(ClientId client) { active_.erase(client); }

void UploadSlots::abandon(ClientId client) {
  const auto found = active_.find(client);
  COVEY_ASSERT(found != active_.end() && !found->second.opened);
  abandoned_.insert(found->second.key);
  active_.erase(found);
}

bool UploadSlots::release_abandoned(const UploadKey& key) {
  const auto found = abandoned_.find(key);
  if (found == abandoned_.end()) return false;
  abandoned_.erase(found);
  return true;
}

std::vector<ClientId> UploadSlots::stalled_since(Time moment) const {
  std::vector<ClientId> stalled;
  for (const auto& [client, upload] : active_) {
    if (upload.opened && upload.last_chunk <= moment) stalled.push_back(client);
  }
  std::ranges::sort(stalled);
  return stalled;
}

void UploadSlots::clear() {
  queue_.clear();
  tickets_.clear();
  active_.clear();
  abandoned_.clear();
}

}  // namespace covey::server
