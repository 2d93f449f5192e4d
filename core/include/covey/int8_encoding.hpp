#pragma once

#include <covey/bytes.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <span>

namespace covey {

/// The "int8" encoding of a model or an update. For each tensor of the layout, in order,
/// little-endian and without gaps:
///   two or more dimensions: a float scale for each output channel (the last dimension), then one
///   int8
///     q in [-127, 127] per value, in the tensor's row-major order; value = scale[channel] * q;
///   one dimension (biases, 0.2 percent of a typical model): floats as they are.
/// Scales are positive and have at most 16 significant bits, so scale * q (7 bits) is exact in
/// single precision: whoever decodes a blob, with whatever instructions, gets the same bits.
///
/// A model's scale is its channel's largest magnitude times `headroom` / 127, rounded up. The update
/// of a device that trains in int8 carries the scales of the model it belongs to and counts steps of
/// them, at most 127 in either direction: what moves further is clipped. Any other vector that is
/// sent in int8 gets scales of its own.

/// Bytes of any blob over this layout.
std::size_t int8_encoded_size(const ModelLayout& layout);

struct Int8Encoding {
  /// How far beyond its largest magnitude a channel's range reaches, >= 1: a device that trains on
  /// the blob's scales can move a weight to headroom * max|w| and no further. With 1 no range could
  /// ever grow: the 2nn of McMahan et al. 2017 then stops at 94% on MNIST instead of 97%; from 1.05
  /// to 1.6 it does not matter. 1.25 costs a third of a bit of an update's precision.
  float headroom = 1.25f;
};

/// Rounds to nearest, ties to even. values: R^d. A channel of zeros takes the largest scale of its
/// tensor, and a tensor of zeros 2^-10, so that training can leave zero. A channel with a value
/// that is not finite gets the scale NaN, which whoever decodes the blob refuses by name.
SharedBytes encode_int8(std::span<const float> values, const ModelLayout& layout,
                        const Int8Encoding& encoding = {});
/// Rounds up or down at random so that the expected decoded value is the value itself.
SharedBytes encode_int8(std::span<const float> values, const ModelLayout& layout,
                        RandomStream& random, const Int8Encoding& encoding = {});

/// Error naming the tensor where the size, a scale, an int8 value or a float is not as described
/// above; `out` (R^d) is written only if all is well.
Result<void> decode_int8(std::span<const std::byte> bytes, const ModelLayout& layout,
                         std::span<float> out);
/// The same checks without a result.
Result<void> check_int8(std::span<const std::byte> bytes, const ModelLayout& layout);

/// True for a scale that blobs may hold: positive, normal, at most 16 significant bits, and 127
/// times it is finite.
bool is_int8_scale(float scale);
/// The smallest scale not below `value` (positive and finite, clamped to what is_int8_scale
/// allows).
float round_up_to_int8_scale(float value);

}  // namespace covey
