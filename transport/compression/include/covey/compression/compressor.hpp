#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <covey/bytes.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/ids.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>

/// Updates as few bytes. No I/O and no clock: server, device and simulator run the same code, and equal
/// inputs give equal bytes on every machine.
namespace covey::compression {

/// What both ends know of one update without sending it; every draw comes from it.
struct UpdateName {
  std::uint64_t seed = 0;  ///< of the plan
  RoundNumber round{};
  ClientId client{};
};

/// How many bytes an encoded update may have.
struct SizeRange {
  std::size_t min = 0;
  std::size_t max = 0;
  bool contains(std::uint64_t size) const { return size >= min && size <= max; }
};

/// One way to encode updates of one layout. Keeps scratch memory of O(d): one thread at a time.
class Compressor {
 public:
  virtual ~Compressor() = default;

  virtual SizeRange sizes() const = 0;
  /// update: R^d, finite.
  virtual SharedBytes encode(std::span<const float> update, const UpdateName& name) = 0;
  /// out: R^d, written only if all is well. Error naming what is wrong with `bytes`, whatever they are;
  /// what it writes is finite.
  virtual Result<void> decode(std::span<const std::byte> bytes, const UpdateName& name,
                              std::span<float> out) = 0;
};

/// The compressor that `spec` names, with zstd around it where it says so; of error feedback it takes the
/// choice of scale (CompressorSpec::error_feedback), the feedback itself is the device's (client/).
Result<std::unique_ptr<Compressor>> make_compressor(const CompressorSpec& spec, const ModelLayout& layout);

}  // namespace covey::compression
