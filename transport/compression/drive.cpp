#include <cstring>
#include <vector>

#include "methods.hpp"
#include "packing.hpp"
#include "rotated_blocks.hpp"
#include "rounding.hpp"

/// "drive" (Vargaftik et al. 2021): each block rotated, then a sign a value and a scale. One bit a
/// value and 4 bytes for each 2^14 values. E|Q(x) - x|^2 = 0.571 |x|^2 with the unbiased scale
/// |x|^2 / |Rx|_1, 0.363 |x|^2 with that of least error, |Rx|_1 / n, which error feedback takes;
/// both as n grows.
///
/// Form: the scales of all blocks, then the signs of all blocks (0: not negative), a multiple of 8
/// each.
namespace covey::compression {
namespace {

void signs_of(const float* values, std::size_t size, std::uint8_t* codes) {
  for (std::size_t i = 0; i < size; ++i) codes[i] = values[i] < 0 ? 1 : 0;
}

class Drive final : public Compressor {
 public:
  Drive(bool least_error, std::size_t size)
      : least_error_(least_error),
        size_(size),
        blocks_(num_rotated_blocks(size)),
        bytes_(blocks_ * sizeof(float) + rotated_size(size) / 8),
        values_(kLargestBlock),
        codes_(kLargestBlock) {}

  SizeRange sizes() const override { return {bytes_, bytes_}; }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    std::vector<std::byte> bytes(bytes_);
    std::byte* scales = bytes.data();
    std::byte* signs = scales + blocks_ * sizeof(float);
    Rotation rotation(name);
    for (std::size_t at = 0; at < size_;) {
      const RotatedBlock block = rotated_block_at(at, size_);
      const float scale = encode_block(update.subspan(at, block.count), block.size, rotation);
      std::memcpy(scales, &scale, sizeof scale);
      scales += sizeof scale;
      pack_codes<1>(codes_.data(), block.size, signs);
      signs += block.size / 8;
      at += block.count;
    }
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& name,
                      std::span<float> out) override {
    COVEY_TRY(check_size("drive", bytes.size(), sizes(), size_));
    COVEY_TRY(check_scales("drive", bytes, blocks_));
    const std::byte* scales = bytes.data();
    const std::byte* signs = scales + blocks_ * sizeof(float);
    Rotation rotation(name);
    for (std::size_t at = 0; at < size_;) {
      const RotatedBlock block = rotated_block_at(at, size_);
      float scale;
      std::memcpy(&scale, scales, sizeof scale);
      scales += sizeof scale;
      unpack_codes<1>(signs, block.size, codes_.data());
      signs += block.size / 8;
      for (std::size_t i = 0; i < block.size; ++i) values_[i] = codes_[i] != 0 ? -scale : scale;
      rotation.rotate_back(values_.data(), block.size);
      std::memcpy(out.data() + at, values_.data(), block.count * sizeof(float));
      at += block.count;
    }
    return {};
  }

 private:
  /// Leaves the signs in codes_.
  float encode_block(std::span<const float> update, std::size_t size, Rotation& rotation) {
    std::copy(update.begin(), update.end(), values_.begin());
    std::fill(values_.begin() + static_cast<std::ptrdiff_t>(update.size()),
              values_.begin() + static_cast<std::ptrdiff_t>(size), 0.0f);
    const double squares = sum_of_squares(values_.data(), size);
    rotation.rotate(values_.data(), size);
    signs_of(values_.data(), size, codes_.data());
    const double magnitudes = sum_of_magnitudes(values_.data(), size);
    if (magnitudes == 0) return 0;
    return held_scale(least_error_ ? magnitudes / static_cast<double>(size) : squares / magnitudes);
  }

  bool least_error_;
  std::size_t size_;
  std::size_t blocks_;
  std::size_t bytes_;
  std::vector<float> values_;
  std::vector<std::uint8_t> codes_;
};

}  // namespace

std::unique_ptr<Compressor> make_drive(const CompressorSpec& spec, std::size_t size) {
  return std::make_unique<Drive>(spec.error_feedback, size);
}

}  // namespace covey::compression
