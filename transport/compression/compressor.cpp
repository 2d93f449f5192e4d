#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/compression/compressor.hpp>
#include <cstdint>

#include "methods.hpp"

namespace covey::compression {

static_assert(std::endian::native == std::endian::little, "encoded updates are little-endian");

namespace {

/// parse_compressor gives only such; a spec put together elsewhere may not be one.
bool makes_sense(const CompressorSpec& spec) {
  switch (spec.kind) {
    case CompressorKind::kLinear:
      return spec.bits == 2 || spec.bits == 4;
    case CompressorKind::kEden:
      return spec.bits >= 1 && spec.bits <= 4;
    case CompressorKind::kTopK:
    case CompressorKind::kRandomK:
      return spec.parameter > 0 && spec.parameter <= 1;
    case CompressorKind::kRateDistortion:
      // loses at most parameter^2 / 4 of the squares: nothing may be left to send later from 2 on
      return spec.parameter > 0 &&
             (spec.error_feedback ? spec.parameter < 2 : std::isfinite(spec.parameter));
    case CompressorKind::kFp32:
    case CompressorKind::kFp16:
    case CompressorKind::kBf16:
    case CompressorKind::kInt8:
    case CompressorKind::kSign:
    case CompressorKind::kDrive:
      return true;
  }
  return false;
}

std::unique_ptr<Compressor> make_method(const CompressorSpec& spec, const ModelLayout& layout) {
  switch (spec.kind) {
    case CompressorKind::kFp32:
    case CompressorKind::kBf16:
    case CompressorKind::kInt8:
      return make_plain(spec, layout);
    case CompressorKind::kFp16:
      return make_float16(spec, layout.size());
    case CompressorKind::kLinear:
      return make_linear(spec, layout.size());
    case CompressorKind::kSign:
      return make_sign(layout);
    case CompressorKind::kDrive:
      return make_drive(spec, layout.size());
    case CompressorKind::kEden:
      return make_eden(spec, layout.size());
    case CompressorKind::kTopK:
      return make_top_k(spec, layout.size());
    case CompressorKind::kRandomK:
      return make_random_k(spec, layout.size());
    case CompressorKind::kRateDistortion:
      return make_rate_distortion(spec, layout.size());
  }
  COVEY_ASSERT(false);
  return nullptr;
}

}  // namespace

Result<std::unique_ptr<Compressor>> make_compressor(const CompressorSpec& spec,
                                                    const ModelLayout& layout) {
  if (!makes_sense(spec)) {
    return invalid_argument(
        fmt::format("there is no compressor of kind {} with {} bits and parameter {}",
                    static_cast<int>(spec.kind), spec.bits, spec.parameter));
  }
  // runs of zeros and counters of random numbers have 32 bits
  if (layout.size() > INT32_MAX) {
    return invalid_argument(
        fmt::format("compressor \"{}\" encodes at most {} values; the model has {}",
                    to_string(spec), INT32_MAX, layout.size()));
  }
  auto method = make_method(spec, layout);
  return spec.zstd ? make_zstd(std::move(method)) : std::move(method);
}

std::size_t kept_values(double share, std::size_t size) {
  if (size == 0) return 0;
  const double wanted = std::ceil(share * static_cast<double>(size));
  return std::clamp<std::size_t>(static_cast<std::size_t>(wanted), 1, size);
}

Result<void> check_size(std::string_view name, std::size_t bytes, const SizeRange& sizes,
                        std::size_t values) {
  if (sizes.contains(bytes)) return {};
  const std::string expected = sizes.min == sizes.max
                                   ? fmt::format("{}", sizes.min)
                                   : fmt::format("{} to {}", sizes.min, sizes.max);
  return malformed(
      fmt::format("{}: {} bytes where {} values take {}", name, bytes, values, expected));
}

}  // namespace covey::compression
