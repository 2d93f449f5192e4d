#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "methods.hpp"
#include "packing.hpp"
#include "rounding.hpp"

/// "sign": signs and, of every tensor p of n values, the scale |p|_1 / n (signSGD with error
/// feedback, Karimireddy et al. 2019, layer by layer as in their section 6). One bit a value and 4
/// bytes a tensor. |C(p) - p|^2 = |p|^2 - |p|_1^2 / n, so below (1 - 1/n) |p|^2: biased, always
/// with error feedback.
///
/// Form: the scales of all tensors that have values, the signs of all values (1: negative), zeros
/// up to the byte.
namespace covey::compression {
namespace {

constexpr std::size_t kPiece = 2048;

void signs_of(const float* values, std::size_t count, std::uint8_t* codes) {
  for (std::size_t i = 0; i < count; ++i) {
    codes[i] = static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(values[i]) >> 31);
  }
}

class Sign final : public Compressor {
 public:
  explicit Sign(const ModelLayout& layout) : size_(layout.size()) {
    for (const TensorLayout& tensor : layout.tensors()) {
      if (tensor.size() > 0) ends_.push_back(tensor.offset + tensor.size());
    }
  }

  SizeRange sizes() const override {
    const std::size_t size = ends_.size() * sizeof(float) + (size_ + 7) / 8;
    return {size, size};
  }

  SharedBytes encode(std::span<const float> update, const UpdateName& /*name*/) override {
    std::vector<std::byte> bytes(sizes().max);
    std::byte* out = bytes.data();
    std::size_t start = 0;
    for (const std::size_t end : ends_) {
      const std::size_t count = end - start;
      const double scale =
          sum_of_magnitudes(update.data() + start, count) / static_cast<double>(count);
      const auto sent =
          static_cast<float>(std::min(scale, double{std::numeric_limits<float>::max()}));
      std::memcpy(out, &sent, sizeof sent);
      out += sizeof sent;
      start = end;
    }
    for (std::size_t at = 0; at < size_; at += kPiece) {
      std::uint8_t codes[kPiece + 8] = {};
      const std::size_t count = std::min(kPiece, size_ - at);
      signs_of(update.data() + at, count, codes);
      pack_codes<1>(codes, count, out + at / 8);
    }
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& /*name*/,
                      std::span<float> out) override {
    COVEY_TRY(check(bytes));
    const auto signs = bytes.subspan(ends_.size() * sizeof(float));
    for (std::size_t at = 0; at < size_; at += kPiece) {
      std::uint8_t codes[kPiece + 8];
      const std::size_t count = std::min(kPiece, size_ - at);
      unpack_codes<1>(signs.data() + at / 8, count, codes);
      for (std::size_t i = 0; i < count; ++i) out[at + i] = codes[i] != 0 ? -1.0f : 1.0f;
    }
    std::size_t start = 0;
    for (std::size_t tensor = 0; tensor < ends_.size(); ++tensor) {
      const float scale = scale_at(bytes, tensor);
      for (std::size_t i = start; i < ends_[tensor]; ++i) out[i] *= scale;
      start = ends_[tensor];
    }
    return {};
  }

 private:
  static float scale_at(std::span<const std::byte> bytes, std::size_t tensor) {
    float scale;
    std::memcpy(&scale, bytes.data() + tensor * sizeof scale, sizeof scale);
    return scale;
  }

  Result<void> check(std::span<const std::byte> bytes) const {
    COVEY_TRY(check_size("sign", bytes.size(), sizes(), size_));
    for (std::size_t tensor = 0; tensor < ends_.size(); ++tensor) {
      const float scale = scale_at(bytes, tensor);
      if (!(scale >= 0 && scale <= std::numeric_limits<float>::max())) {
        return malformed(
            fmt::format("sign: the scale of tensor {} is {}; scales are finite and not negative",
                        tensor, scale));
      }
    }
    if (size_ % 8 != 0 && std::to_integer<unsigned>(bytes.back()) >> (size_ % 8) != 0) {
      return malformed("sign: the bits behind the last value are not 0");
    }
    return {};
  }

  std::size_t size_;
  std::vector<std::size_t> ends_;  ///< of the tensors that have values
};

}  // namespace

std::unique_ptr<Compressor> make_sign(const ModelLayout& layout) {
  return std::make_unique<Sign>(layout);
}

}  // namespace covey::compression
