#include <bit>
#include <covey/assert.hpp>
#include <covey/bfloat16.hpp>
#include <covey/encoding.hpp>
#include <covey/int8_encoding.hpp>
#include <cstring>
#include <string>
#include <vector>

namespace covey {

static_assert(std::endian::native == std::endian::little, "bf16 blobs are little-endian");

namespace {

void store_bf16(std::byte* to, std::uint16_t value) { std::memcpy(to, &value, sizeof value); }

/// value_at(i): the i-th of `size` values.
template <typename ValueAt>
SharedBytes encode_bf16(std::size_t size, RandomStream* random, ValueAt value_at) {
  std::vector<std::byte> bytes(size * sizeof(std::uint16_t));
  std::byte* out = bytes.data();
  if (random == nullptr) {
    for (std::size_t i = 0; i < size; ++i, out += sizeof(std::uint16_t)) {
      store_bf16(out, float_to_bf16(value_at(i)));
    }
    return SharedBytes(std::move(bytes));
  }
  std::uint32_t bits = 0;  // one draw serves two values
  for (std::size_t i = 0; i < size; ++i, out += sizeof(std::uint16_t)) {
    bits = i % 2 == 0 ? random->next_u32() : bits >> 16;
    store_bf16(out, float_to_bf16(value_at(i), static_cast<std::uint16_t>(bits)));
  }
  return SharedBytes(std::move(bytes));
}

SharedBytes encode_fp32_difference(std::span<const float> trained, std::span<const float> initial) {
  std::vector<std::byte> bytes(trained.size() * sizeof(float));
  for (std::size_t i = 0; i < trained.size(); ++i) {
    const float difference = trained[i] - initial[i];
    std::memcpy(bytes.data() + i * sizeof difference, &difference, sizeof difference);
  }
  return SharedBytes(std::move(bytes));
}

/// An update: nobody trains on its scales, so they need no headroom.
SharedBytes encode_int8_update(std::span<const float> values, const ModelLayout& layout,
                               RandomStream* random) {
  constexpr Int8Encoding kTight{.headroom = 1};
  return random == nullptr ? encode_int8(values, layout, kTight)
                           : encode_int8(values, layout, *random, kTight);
}

/// Tensor by tensor, each of which is encoded by itself: room for the difference of the largest
/// one.
SharedBytes encode_int8_difference(const ModelLayout& layout, std::span<const float> trained,
                                   std::span<const float> initial, RandomStream* random) {
  std::vector<std::byte> bytes;
  bytes.reserve(int8_encoded_size(layout));
  std::vector<float> difference;
  for (const TensorLayout& tensor : layout.tensors()) {
    difference.resize(tensor.size());
    for (std::size_t i = 0; i < difference.size(); ++i) {
      difference[i] = trained[tensor.offset + i] - initial[tensor.offset + i];
    }
    ModelLayout alone;
    alone.append(tensor.name, tensor.shape);
    const SharedBytes part = encode_int8_update(difference, alone, random);
    bytes.insert(bytes.end(), part.span().begin(), part.span().end());
  }
  COVEY_ASSERT(bytes.size() == int8_encoded_size(layout));
  return SharedBytes(std::move(bytes));
}

void decode_bf16(std::span<const std::byte> bytes, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t value = 0;
    std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
    out[i] = bf16_to_float(value);
  }
}

}  // namespace

std::optional<Encoding> encoding_named(std::string_view name) {
  for (const Encoding encoding : {Encoding::kFp32, Encoding::kBf16, Encoding::kInt8}) {
    if (name == to_string(encoding)) return encoding;
  }
  return std::nullopt;
}

std::optional<Encoding> plain_encoding(const CompressorSpec& spec) {
  if (spec.error_feedback || spec.zstd) return std::nullopt;
  switch (spec.kind) {
    case CompressorKind::kFp32:
      return Encoding::kFp32;
    case CompressorKind::kBf16:
      return Encoding::kBf16;
    case CompressorKind::kInt8:
      return Encoding::kInt8;
    default:
      return std::nullopt;
  }
}

std::string_view to_string(Encoding encoding) {
  switch (encoding) {
    case Encoding::kFp32:
      return "fp32";
    case Encoding::kBf16:
      return "bf16";
    case Encoding::kInt8:
      return "int8";
  }
  return "unknown";
}

Result<Encoding> model_encoding(std::string_view precision) {
  if (precision == "fp32" || precision == "qat-int8") return Encoding::kFp32;
  if (precision == "bf16") return Encoding::kBf16;
  if (precision == "int8") return Encoding::kInt8;
  return invalid_argument("there is no precision \"" + std::string(precision) +
                          "\"; there are fp32, bf16, qat-int8 and int8");
}

std::size_t encoded_size(Encoding encoding, const ModelLayout& layout) {
  switch (encoding) {
    case Encoding::kFp32:
      return layout.size() * sizeof(float);
    case Encoding::kBf16:
      return layout.size() * sizeof(std::uint16_t);
    case Encoding::kInt8:
      return int8_encoded_size(layout);
  }
  COVEY_ASSERT(false);
  return 0;
}

SharedBytes encode(Encoding encoding, const ModelLayout& layout, std::span<const float> values,
                   RandomStream* random) {
  COVEY_ASSERT(values.size() == layout.size());
  switch (encoding) {
    case Encoding::kFp32:
      return encode_fp32(values);
    case Encoding::kBf16:
      return encode_bf16(values.size(), random, [&](std::size_t i) { return values[i]; });
    case Encoding::kInt8:
      return random == nullptr ? encode_int8(values, layout)
                               : encode_int8_update(values, layout, random);
  }
  COVEY_ASSERT(false);
  return {};
}

SharedBytes encode_difference(Encoding encoding, const ModelLayout& layout,
                              std::span<const float> trained, std::span<const float> initial,
                              RandomStream* random) {
  COVEY_ASSERT(trained.size() == layout.size() && initial.size() == layout.size());
  switch (encoding) {
    case Encoding::kFp32:
      return encode_fp32_difference(trained, initial);
    case Encoding::kBf16:
      return encode_bf16(trained.size(), random,
                         [&](std::size_t i) { return trained[i] - initial[i]; });
    case Encoding::kInt8:
      return encode_int8_difference(layout, trained, initial, random);
  }
  COVEY_ASSERT(false);
  return {};
}

Result<void> decode(Encoding encoding, const ModelLayout& layout, std::span<const std::byte> bytes,
                    std::span<float> out) {
  COVEY_ASSERT(out.size() == layout.size());
  const std::size_t expected = encoded_size(encoding, layout);
  if (bytes.size() != expected) {
    return malformed(std::to_string(bytes.size()) + " bytes where " + std::to_string(out.size()) +
                     " parameters as " + std::string(to_string(encoding)) + " take " +
                     std::to_string(expected));
  }
  switch (encoding) {
    case Encoding::kFp32:
      return decode_fp32(bytes, out);
    case Encoding::kBf16:
      decode_bf16(bytes, out);
      return {};
    case Encoding::kInt8:
      return decode_int8(bytes, layout, out);
  }
  COVEY_ASSERT(false);
  return {};
}

}  // namespace covey
