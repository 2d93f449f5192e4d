#pragma once

#include <covey/result.hpp>
#include <covey/server/upload_spool.hpp>
#include <cstdint>
#include <string>

namespace covey::server {

/// "the upload of client 7 in round 3"
std::string describe(const UploadKey& key);

/// Error if an upload must not be announced with this size.
Result<void> check_announced_size(const UploadKey& key, std::uint64_t size);

/// How many of a chunk's first bytes are held already, where the chunk [offset, offset + length) is
/// written to an upload of `size` bytes whose first `held` are there. Error: a gap, or beyond the
/// size.
Result<std::uint64_t> bytes_to_skip(const UploadKey& key, std::uint64_t size, std::uint64_t held,
                                    std::uint64_t offset, std::uint64_t length);

}  // namespace covey::server
