#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace covey::client {

/// Places for examples, filled from the first to the last, then used again. One thread at a time.
class ExamplePool {
 public:
  ExamplePool() = default;
  ExamplePool(std::uint64_t capacity, std::size_t example_bytes)
      : capacity_(capacity), example_bytes_(example_bytes) {}

  std::uint64_t capacity() const { return capacity_; }
  std::uint64_t size() const { return sequences_.size(); }

  /// Into a place that is taken, or the first that is not. False for any other.
  bool put(std::uint64_t slot, std::uint64_t sequence, std::int32_t label,
           std::span<const std::byte> features) {
    if (slot > size() || slot >= capacity_) return false;
    if (slot == size()) {
      grow();
      sequences_.push_back(0);
      labels_.push_back(0);
      features_.resize(features_.size() + example_bytes_);
    }
    const auto place = static_cast<std::size_t>(slot);
    sequences_[place] = sequence;
    labels_[place] = label;
    std::memcpy(features_.data() + place * example_bytes_, features.data(), example_bytes_);
    return true;
  }

  std::uint64_t sequence(std::uint64_t slot) const {
    return sequences_[static_cast<std::size_t>(slot)];
  }
  std::int32_t label(std::uint64_t slot) const { return labels_[static_cast<std::size_t>(slot)]; }
  std::span<const std::byte> features(std::uint64_t slot) const {
    return std::span(features_).subspan(static_cast<std::size_t>(slot) * example_bytes_,
                                        example_bytes_);
  }
  /// Of the example that came first.
  std::uint64_t oldest() const {
    std::size_t slot = 0;
    for (std::size_t i = 1; i < sequences_.size(); ++i) {
      if (sequences_[i] < sequences_[slot]) slot = i;
    }
    return slot;
  }

 private:
  /// By half, never beyond the capacity: what is reserved counts as memory that is used.
  void grow() {
    if (size() < sequences_.capacity()) return;
    const auto wanted = static_cast<std::size_t>(std::min(capacity_, size() + size() / 2 + 16));
    sequences_.reserve(wanted);
    labels_.reserve(wanted);
    features_.reserve(wanted * example_bytes_);
  }

  std::uint64_t capacity_ = 0;
  std::size_t example_bytes_ = 0;
  std::vector<std::byte> features_;
  std::vector<std::int32_t> labels_;
  std::vector<std::uint64_t> sequences_;
};

}  // namespace covey::client
