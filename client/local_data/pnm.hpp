#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace covey::client {

struct PnmImage {
  std::vector<std::uint32_t> extents;  ///< height, width, channels (1 or 3)
  std::vector<std::uint8_t> pixels;    ///< [height x width x channels], 255 is white
};

/// "28x28 pixels of 1 channel"
std::string describe(const PnmImage& image);

/// Reads a binary PGM (P5) or PPM (P6) image with at most 255 levels, into the memory of `image`.
/// False where it is cut short and was written to just now: its writer is not done. Error naming
/// the file, also where the pixels take more than `max_bytes`.
Result<bool> read_pnm(const std::string& path, std::uint64_t max_bytes, PnmImage& image);

}  // namespace covey::client
