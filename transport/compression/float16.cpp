#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "finite.hpp"
#include "methods.hpp"
#include "random_halves.hpp"
#include "rounding.hpp"

/// "fp16": IEEE 754 half precision, 2 bytes a value. Rounded stochastically, so without bias (to
/// nearest where there is error feedback); error below 2^-10 of a value, or below 2^-24 where that
/// is more. What is beyond the largest half, 65,504, becomes it.
namespace covey::compression {
namespace {

constexpr std::uint16_t kExponent = 0x7c00;
constexpr std::uint32_t kLargest = 0x7bff;
constexpr std::uint32_t kDropped = 13;                       // bits of a single's significand
constexpr std::uint32_t kRebias = std::uint32_t{112} << 23;  // exponent biases: 127 - 15
constexpr float kSmallestNormal = 0x1p-14f;
constexpr float kPerSubnormal = 0x1p24f;  // subnormal halves are multiples of 2^-24

/// normal: what is added to the dropped bits. threshold: round_above's, of multiples of 2^-24.
[[gnu::always_inline]] inline std::uint16_t to_half(float value, std::uint32_t normal,
                                                    float threshold) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude_bits = bits & 0x7fffffff;
  const float magnitude = std::bit_cast<float>(magnitude_bits);
  const std::uint32_t above = (magnitude_bits - kRebias + normal) >> kDropped;
  // only used below 2^-14; held there so that the conversion is defined
  const float small = magnitude < kSmallestNormal ? magnitude : 0.0f;
  const auto below = static_cast<std::uint32_t>(round_above(small * kPerSubnormal, threshold));
  const std::uint32_t chosen = magnitude < kSmallestNormal ? below : above;
  const std::uint32_t held = chosen < kLargest ? chosen : kLargest;
  return static_cast<std::uint16_t>(held | ((bits >> 16) & 0x8000));
}

void encode_random(const float* values, const std::uint16_t* random, std::size_t size,
                   std::uint16_t* out) {
  for (std::size_t i = 0; i < size; ++i) {
    out[i] = to_half(values[i], std::uint32_t{random[i]} >> 3, random_threshold(random[i]));
  }
}

void encode_nearest(const float* values, std::size_t size, std::uint16_t* out) {
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t odd = (std::bit_cast<std::uint32_t>(values[i]) >> kDropped) & 1;
    out[i] = to_half(values[i], 0xfff + odd, kHalf);
  }
}

/// Exact: every half is a single, and the product by a power of two also makes subnormals normal.
void decode_halves(const std::uint16_t* halves, std::size_t size, float* out) {
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t half = halves[i];
    const float magnitude = std::bit_cast<float>((half & 0x7fff) << kDropped) * 0x1p112f;
    out[i] =
        std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | ((half & 0x8000) << 16));
  }
}

class Float16 final : public Compressor {
 public:
  Float16(bool nearest, std::size_t size) : nearest_(nearest), size_(size) {}

  SizeRange sizes() const override {
    return {size_ * sizeof(std::uint16_t), size_ * sizeof(std::uint16_t)};
  }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    std::vector<std::byte> bytes(sizes().max);
    RandomHalves random(name);
    std::uint16_t halves[RandomHalves::kChunk];
    for (std::size_t start = 0; start < size_; start += RandomHalves::kChunk) {
      const std::size_t count = std::min(RandomHalves::kChunk, size_ - start);
      if (nearest_) {
        encode_nearest(update.data() + start, count, halves);
      } else {
        encode_random(update.data() + start, random.next().data(), count, halves);
      }
      std::memcpy(bytes.data() + start * sizeof halves[0], halves, count * sizeof halves[0]);
    }
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& /*name*/,
                      std::span<float> out) override {
    COVEY_TRY(check_size("fp16", bytes.size(), sizes(), size_));
    COVEY_TRY((check_finite<std::uint16_t, kExponent>("fp16", bytes)));
    std::uint16_t halves[RandomHalves::kChunk];
    for (std::size_t start = 0; start < size_; start += RandomHalves::kChunk) {
      const std::size_t count = std::min(RandomHalves::kChunk, size_ - start);
      std::memcpy(halves, bytes.data() + start * sizeof halves[0], count * sizeof halves[0]);
      decode_halves(halves, count, out.data() + start);
    }
    return {};
  }

 private:
  bool nearest_;
  std::size_t size_;
};

}  // namespace

std::unique_ptr<Compressor> make_float16(const CompressorSpec& spec, std::size_t size) {
  return std::make_unique<Float16>(spec.error_feedback, size);
}

}  // namespace covey::compression
