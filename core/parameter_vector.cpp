#include <covey/parameter_vector.hpp>

#include <bit>
#include <cstring>

namespace covey {

static_assert(std::endian::native == std::endian::little, "fp32 blobs are little-endian");

std::size_t TensorLayout::size() const {
  std::size_t product = 1;
  for (const std::uint32_t extent : shape) product *= extent;
  return product;
}

std::size_t ModelLayout::append(std::string name, std::vector<std::uint32_t> shape) {
  TensorLayout tensor{std::move(name), std::move(shape), size_};
  size_ += tensor.size();
  tensors_.push_back(std::move(tensor));
  return tensors_.back().offset;
}

ParameterVector::ParameterVector(std::size_t size)
    : data_(static_cast<float*>(::operator new[](size * sizeof(float), std::align_val_t{64}))),
      size_(size) {
  std::memset(data_.get(), 0, size * sizeof(float));
}

ParameterVector ParameterVector::clone() const {
  ParameterVector copy(size_);
  if (size_ > 0) std::memcpy(copy.data(), data(), size_ * sizeof(float));
  return copy;
}

SharedBytes encode_fp32(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return SharedBytes(std::vector<std::byte>(bytes.begin(), bytes.end()));
}

SharedBytes encode_fp32(ParameterVector values) {
  auto owner = std::make_shared<const ParameterVector>(std::move(values));
  const auto bytes = std::as_bytes(owner->span());
  return SharedBytes::whole(std::move(owner), bytes);
}

Result<void> decode_fp32(std::span<const std::byte> bytes, std::span<float> out) {
  if (bytes.size() != out.size_bytes()) {
    return malformed(std::to_string(bytes.size()) + " bytes where " + std::to_string(out.size()) +
                     " parameters take " + std::to_string(out.size_bytes()));
  }
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return {};
}

}  // namespace covey
