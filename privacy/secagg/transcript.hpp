#pragma once

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/secure_messages.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace covey::privacy {

/// What is signed, hashed or bound into a key, in one fixed encoding: a label of its own, then the
/// fields, little-endian, of fixed width or with their length in front. So no two different
/// statements have the same bytes. Not for secrets: the buffer is not wiped.
class Transcript {
 public:
  explicit Transcript(std::string_view label);

  Transcript& add(std::uint64_t value);
  Transcript& add(double value);  ///< its bits
  Transcript& add(ClientId client) { return add(value_of(client)); }
  Transcript& add(const Digest& digest);
  Transcript& add(const PublicKey& key);
  Transcript& add(const AggregationRound& round);
  /// Their number, then the bytes.
  Transcript& add(std::span<const std::byte> bytes);

  std::span<const std::byte> bytes() const { return bytes_; }
  Digest digest() const { return sha256(bytes_); }

 private:
  void append(std::span<const std::uint8_t> bytes);

  std::vector<std::byte> bytes_;
};

}  // namespace covey::privacy
