#pragma once

#include <covey/bytes.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace covey::compression {

/// A model blob as a difference to another blob of the same length, without loss: applying it gives
/// the bytes of `model` back. `encoding` names how it was made (ModelDelta::encoding).
struct EncodedDelta {
  SharedBytes bytes;
  std::string encoding;
};
/// Error if the lengths differ. `element_size`: bytes of a number in the blobs (4 fp32, 2 bf16, 1
/// int8).
Result<EncodedDelta> encode_model_delta(std::span<const std::byte> base,
                                        std::span<const std::byte> model, std::size_t element_size);
/// Error for an encoding that is not known, or bytes that are no difference to `base`. The result
/// has the length of `base`; the caller checks its hash. Memory: the result and half a MiB,
/// whatever `delta` says.
Result<SharedBytes> apply_model_delta(std::string_view encoding, std::span<const std::byte> base,
                                      std::span<const std::byte> delta);

}  // namespace covey::compression
