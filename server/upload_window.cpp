#include "upload_window.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace covey::server {

std::string describe(const UploadKey& key) {
  return fmt::format("the upload of client {} in round {}", value_of(key.client),
                     value_of(key.round));
}

Result<void> check_announced_size(const UploadKey& key, std::uint64_t size) {
  if (size > kMaxUploadBytes) {
    return invalid_argument(fmt::format("{} is announced with {} bytes, at most {} are taken",
                                        describe(key), size, kMaxUploadBytes));
  }
  return {};
}

Result<std::uint64_t> bytes_to_skip(const UploadKey& key, std::uint64_t size, std::uint64_t held,
                                    std::uint64_t offset, std::uint64_t length) {
  if (offset > size || length > size - offset) {
    return invalid_argument(
        fmt::format("{} has {} bytes, a chunk of {} bytes at {} does not lie inside", describe(key),
                    size, length, offset));
  }
  if (offset > held) {
    return invalid_argument(fmt::format("{} has a gap: {} bytes are held, the chunk starts at {}",
                                        describe(key), held, offset));
  }
  return std::min(length, held - offset);
}

}  // namespace covey::server
