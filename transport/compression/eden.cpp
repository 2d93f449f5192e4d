#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "lloyd_max.hpp"
#include "methods.hpp"
#include "packing.hpp"
#include "rotated_blocks.hpp"
#include "rounding.hpp"

/// "eden-1" to "eden-4" (Vargaftik et al. 2022): each block rotated, which makes its values all but
/// normal, every value as one of the 2^bits that Lloyd and Max found best for a normal
/// distribution, and a scale: |x|^2 / <c, Rx>, which is unbiased, or with error feedback that of
/// least error, <c, Rx> / <c, c>. So many bits a value and 4 bytes for each 2^14 values. E|Q(x) -
/// x|^2 / |x|^2 as blocks grow, unbiased and of least error: .5708 / .3634, .1331 / .1175, .0358 /
/// .0345, .0096 / .0095.
///
/// Form: the scales of all blocks, then the codes of all blocks: the magnitude's index, above it a
/// bit that says that the value is negative.
namespace covey::compression {
namespace {

/// Values at a time, on the stack.
constexpr std::size_t kPiece = 1024;

struct Products {
  double with_values = 0;  ///< <c, Rx>
  double with_itself = 0;  ///< <c, c>
};

/// sigma: the values' root mean square.
template <unsigned Bits>
Products quantise(const float* values, std::size_t size, float sigma, std::uint8_t* codes) {
  constexpr auto& kLevels = LloydMax<Bits>::kLevels;
  float bounds[kLevels.size()] = {};
  for (std::size_t j = 1; j < kLevels.size(); ++j) {
    bounds[j] = sigma * (0.5f * (kLevels[j - 1] + kLevels[j]));
  }
  Products products;
  alignas(64) float level[kPiece];
  for (std::size_t start = 0; start < size; start += kPiece) {
    const std::size_t count = std::min(kPiece, size - start);
    for (std::size_t i = 0; i < count; ++i) {
      const float value = values[start + i];
      const float magnitude = std::abs(value);
      int index = 0;
      float chosen = kLevels[0];
      for (std::size_t j = 1; j < kLevels.size(); ++j) {
        const bool above = magnitude >= bounds[j];
        index += above ? 1 : 0;
        chosen = above ? kLevels[j] : chosen;
      }
      const bool negative = value < 0;
      codes[start + i] = static_cast<std::uint8_t>(index | (negative ? 1 << (Bits - 1) : 0));
      level[i] = negative ? -chosen : chosen;
    }
    products.with_values += sum_of_products(level, values + start, count);
    products.with_itself += sum_of_squares(level, count);
  }
  return products;
}

template <unsigned Bits>
void dequantise(const std::uint8_t* codes, std::size_t size, float scale, float* values) {
  constexpr auto& kLevels = LloydMax<Bits>::kLevels;
  float table[2 * kLevels.size()];
  for (std::size_t j = 0; j < kLevels.size(); ++j) {
    table[j] = scale * kLevels[j];
    table[kLevels.size() + j] = -table[j];
  }
  for (std::size_t i = 0; i < size; ++i) values[i] = table[codes[i]];
}

template <unsigned Bits>
class Eden final : public Compressor {
 public:
  Eden(bool least_error, std::size_t size)
      : least_error_(least_error),
        size_(size),
        blocks_(num_rotated_blocks(size)),
        bytes_(blocks_ * sizeof(float) + rotated_size(size) / 8 * Bits),
        name_(fmt::format("eden-{}", Bits)),
        values_(kLargestBlock),
        codes_(kLargestBlock) {}

  SizeRange sizes() const override { return {bytes_, bytes_}; }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    std::vector<std::byte> bytes(bytes_);
    std::byte* scales = bytes.data();
    std::byte* codes = scales + blocks_ * sizeof(float);
    Rotation rotation(name);
    for (std::size_t at = 0; at < size_;) {
      const RotatedBlock block = rotated_block_at(at, size_);
      const float scale = encode_block(update.subspan(at, block.count), block.size, rotation);
      std::memcpy(scales, &scale, sizeof scale);
      scales += sizeof scale;
      pack_codes<Bits>(codes_.data(), block.size, codes);
      codes += block.size / 8 * Bits;
      at += block.count;
    }
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& name,
                      std::span<float> out) override {
    COVEY_TRY(check_size(name_, bytes.size(), sizes(), size_));
    COVEY_TRY(check_scales(name_, bytes, blocks_));
    const std::byte* scales = bytes.data();
    const std::byte* codes = scales + blocks_ * sizeof(float);
    Rotation rotation(name);
    for (std::size_t at = 0; at < size_;) {
      const RotatedBlock block = rotated_block_at(at, size_);
      float scale;
      std::memcpy(&scale, scales, sizeof scale);
      scales += sizeof scale;
      unpack_codes<Bits>(codes, block.size, codes_.data());
      codes += block.size / 8 * Bits;
      dequantise<Bits>(codes_.data(), block.size, scale, values_.data());
      rotation.rotate_back(values_.data(), block.size);
      std::memcpy(out.data() + at, values_.data(), block.count * sizeof(float));
      at += block.count;
    }
    return {};
  }

 private:
  /// Leaves the codes in codes_.
  float encode_block(std::span<const float> update, std::size_t size, Rotation& rotation) {
    std::copy(update.begin(), update.end(), values_.begin());
    std::fill(values_.begin() + static_cast<std::ptrdiff_t>(update.size()),
              values_.begin() + static_cast<std::ptrdiff_t>(size), 0.0f);
    const double squares = sum_of_squares(values_.data(), size);
    rotation.rotate(values_.data(), size);
    const auto sigma = static_cast<float>(std::sqrt(squares / static_cast<double>(size)));
    const Products products = quantise<Bits>(values_.data(), size, sigma, codes_.data());
    if (products.with_values == 0) return 0;
    return held_scale(least_error_ ? products.with_values / products.with_itself
                                   : squares / products.with_values);
  }

  bool least_error_;
  std::size_t size_;
  std::size_t blocks_;
  std::size_t bytes_;
  std::string name_;
  std::vector<float> values_;
  std::vector<std::uint8_t> codes_;
};

}  // namespace

std::unique_ptr<Compressor> make_eden(const CompressorSpec& spec, std::size_t size) {
  switch (spec.bits) {
    case 1:
      return std::make_unique<Eden<1>>(spec.error_feedback, size);
    case 2:
      return std::make_unique<Eden<2>>(spec.error_feedback, size);
    case 3:
      return std::make_unique<Eden<3>>(spec.error_feedback, size);
    default:
      return std::make_unique<Eden<4>>(spec.error_feedback, size);
  }
}

}  // namespace covey::compression
