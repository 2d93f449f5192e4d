#pragma once

#include <covey/compression/compressor.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

/// The first bytes of fuzz_compression's inputs: which compressor (an index of kSpecs), how many
/// values (of kSizes), and what the rest is.
namespace covey::fuzz {

enum class CompressionInput : std::uint8_t {
  kUpdate = 0,
  kEncoded = 1,
  kModelDelta = 2,
  kModelSteps = 3
};

inline constexpr const char* kSpecs[] = {"fp32",
                                         "fp16",
                                         "bf16",
                                         "int8",
                                         "int4",
                                         "int2",
                                         "int4+error-feedback",
                                         "int2+error-feedback",
                                         "sign",
                                         "drive",
                                         "drive+error-feedback",
                                         "eden-1",
                                         "eden-2",
                                         "eden-3",
                                         "eden-4",
                                         "eden-4+error-feedback",
                                         "top-k:0.02",
                                         "top-k:0.6",
                                         "top-k:1",
                                         "random-k:0.1",
                                         "random-k:0.9+error-feedback",
                                         "rate-distortion",
                                         "rate-distortion:0.001",
                                         "rate-distortion:1.5+error-feedback",
                                         "fp32+zstd",
                                         "int2+zstd",
                                         "rate-distortion+zstd"};
inline constexpr std::size_t kSizes[] = {0, 1, 7, 8, 63, 64, 65, 200, 1024, 5000};
inline constexpr compression::UpdateName kUpdateName{1, RoundNumber{2}, ClientId{3}};

/// A matrix of eight columns and what is left over.
inline ModelLayout layout_of(std::size_t size) {
  ModelLayout layout;
  const auto rows = static_cast<std::uint32_t>(size / 8);
  if (rows > 0) layout.append("weight", {rows, 8});
  if (size % 8 != 0) layout.append("bias", {static_cast<std::uint32_t>(size % 8)});
  return layout;
}

inline std::unique_ptr<compression::Compressor> make(const char* spec, std::size_t size) {
  return std::move(compression::make_compressor(*parse_compressor(spec), layout_of(size))).value();
}

}  // namespace covey::fuzz
