#pragma once

#include <covey/compression/compressor.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace covey::server {

/// One way in which devices may send their updates. They are offered by preference: a device is
/// asked for the first that it supports.
struct OfferedCompressor {
  std::string name;  ///< TrainingPlan::compressor
  CompressorSpec spec;
  compression::SizeRange sizes;  ///< of an encoded update, bytes

  /// One whose updates have exactly so many bytes.
  static OfferedCompressor of_size(std::string name, std::uint64_t bytes);
};

/// Error naming what of `names` there is not.
Result<std::vector<OfferedCompressor>> offer_compressors(const std::vector<std::string>& names,
                                                         const ModelLayout& layout);
/// The number of the first that a device which says `supported` can carry out; nothing: none of
/// them.
std::optional<std::uint32_t> choose_compressor(std::span<const OfferedCompressor> offered,
                                               const std::vector<std::string>& supported);
/// "eden-1, int8 or fp32".
std::string names_of(std::span<const OfferedCompressor> offered);
/// "398", "41 to 398".
std::string to_string(const compression::SizeRange& sizes);

}  // namespace covey::server
