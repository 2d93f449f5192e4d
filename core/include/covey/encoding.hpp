#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <covey/bytes.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>

/// How parameters and updates travel. Every encoding's size is a function of the layout alone, so a
/// peer can be told how much to expect and held to it.
namespace covey {

enum class Encoding : std::uint8_t {
  kFp32 = 1,  ///< 4 bytes a value
  kBf16 = 2,  ///< 2 bytes: the upper half of the fp32, rounded
  kInt8 = 3,  ///< 1 byte and a scale per output channel; tensors of rank 1 stay fp32 (int8_encoding.hpp)
};

/// "fp32", "bf16", "int8"; nothing for another name.
std::optional<Encoding> encoding_named(std::string_view name);
/// The encoding that a compressor without options is: of "fp32", "bf16" and "int8".
std::optional<Encoding> plain_encoding(const CompressorSpec& spec);
std::string_view to_string(Encoding encoding);

/// How a model is sent to a device that trains in `precision`: fp32 for "fp32" and "qat-int8", else the
/// precision's own. Error for an unknown precision, naming those there are.
Result<Encoding> model_encoding(std::string_view precision);

/// Bytes of a vector of this layout.
std::size_t encoded_size(Encoding encoding, const ModelLayout& layout);

/// values: R^d, d = layout.size(). Rounded to nearest (a model: int8 scales leave room to train in,
/// Int8Encoding::headroom), or where `random` is given stochastically, that is unbiased (an update:
/// int8 scales fit it).
SharedBytes encode(Encoding encoding, const ModelLayout& layout, std::span<const float> values,
                   RandomStream* random = nullptr);

/// The same for the update trained - initial (each difference formed in float); room is needed for one
/// tensor's difference at most.
SharedBytes encode_difference(Encoding encoding, const ModelLayout& layout,
                              std::span<const float> trained, std::span<const float> initial,
                              RandomStream* random = nullptr);

/// Error naming what is wrong with `bytes`: length, or a scale that no encoder writes. Values are not
/// checked to be finite.
Result<void> decode(Encoding encoding, const ModelLayout& layout, std::span<const std::byte> bytes,
                    std::span<float> out);

}  // namespace covey
