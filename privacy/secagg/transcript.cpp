#include "secagg/transcript.hpp"

#include <bit>
#include <covey/assert.hpp>

namespace covey::privacy {

Transcript::Transcript(std::string_view label) {
  COVEY_ASSERT(label.size() < 256);
  bytes_.reserve(160);
  bytes_.push_back(static_cast<std::byte>(label.size()));
  for (const char c : label) bytes_.push_back(static_cast<std::byte>(c));
}

Transcript& Transcript::add(std::uint64_t value) {
  for (unsigned shift = 0; shift < 64; shift += 8) {
    bytes_.push_back(static_cast<std::byte>(value >> shift & 0xff));
  }
  return *this;
}

Transcript& Transcript::add(double value) { return add(std::bit_cast<std::uint64_t>(value)); }

Transcript& Transcript::add(const Digest& digest) {
  append(digest.bytes);
  return *this;
}

Transcript& Transcript::add(const PublicKey& key) {
  append(key);
  return *this;
}

Transcript& Transcript::add(const AggregationRound& round) {
  add(value_of(round.run)).add(std::uint64_t{value_of(round.round)});
  append(round.id.bytes);
  return *this;
}

Transcript& Transcript::add(std::span<const std::byte> bytes) {
  add(std::uint64_t{bytes.size()});
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  return *this;
}

void Transcript::append(std::span<const std::uint8_t> bytes) {
  const auto raw = std::as_bytes(bytes);
  bytes_.insert(bytes_.end(), raw.begin(), raw.end());
}

}  // namespace covey::privacy
