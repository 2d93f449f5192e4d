#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace covey::models {

/// An array of unsigned bytes in the idx format (LeCun's MNIST page).
struct IdxArray {
  std::vector<std::uint32_t> extents;
  std::vector<std::uint8_t> values;  ///< product(extents), row-major
};

/// Reads a plain or gzip-compressed idx file of unsigned bytes with this many dimensions. Error
/// naming the file and what is wrong with it: magic number, length, compression, more values than
/// `max_values`.
Result<IdxArray> read_idx(const std::string& path, std::uint32_t dimensions,
                          std::uint64_t max_values = std::uint64_t{1} << 32);

}  // namespace covey::models
