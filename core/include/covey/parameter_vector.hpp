#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/result.hpp>

namespace covey {

/// One tensor inside a ParameterVector.
struct TensorLayout {
  std::string name;                 ///< "dense1.weight"
  std::vector<std::uint32_t> shape; ///< row-major
  std::size_t offset = 0;           ///< in floats from the vector's start

  std::size_t size() const;
  bool operator==(const TensorLayout&) const = default;
};

/// Names the tensors of a model inside its one flat vector, without gaps, in order.
class ModelLayout {
 public:
  /// Appends a tensor behind the last one and returns its offset.
  std::size_t append(std::string name, std::vector<std::uint32_t> shape);

  const std::vector<TensorLayout>& tensors() const { return tensors_; }
  /// Number of parameters, d.
  std::size_t size() const { return size_; }
  bool operator==(const ModelLayout&) const = default;

 private:
  std::vector<TensorLayout> tensors_;
  std::size_t size_ = 0;
};

/// The parameters of a model, or an update to them: R^d as one contiguous, 64-byte-aligned float
/// buffer. Moves are cheap; a copy is asked for by name. Not synchronised.
class ParameterVector {
 public:
  ParameterVector() = default;
  /// d zeros.
  explicit ParameterVector(std::size_t size);

  ParameterVector clone() const;

  std::size_t size() const { return size_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::span<float> span() { return {data_.get(), size_}; }
  std::span<const float> span() const { return {data_.get(), size_}; }
  float& operator[](std::size_t i) { return data_[i]; }
  float operator[](std::size_t i) const { return data_[i]; }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t size_ = 0;
};

/// Little-endian IEEE-754 single precision, 4*d bytes: the "fp32" encoding of the wire and the store.
SharedBytes encode_fp32(std::span<const float> values);
/// The same of a vector that nobody else needs: its own memory becomes the bytes.
SharedBytes encode_fp32(ParameterVector values);
/// Error unless `bytes` holds exactly `out.size()` floats. Values are not checked.
Result<void> decode_fp32(std::span<const std::byte> bytes, std::span<float> out);

}  // namespace covey
