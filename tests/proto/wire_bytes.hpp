#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

/// protobuf's encoding by hand: for messages that no encoder of ours writes.
namespace covey::wire {

using Bytes = std::vector<std::byte>;

inline void append_varint(Bytes& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::byte>(0x80 | (value & 0x7f)));
  out.push_back(static_cast<std::byte>(value));
}

inline Bytes join(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

inline Bytes varint(int field, std::uint64_t value) {
  Bytes out;
  append_varint(out, static_cast<std::uint64_t>(field) << 3);
  append_varint(out, value);
  return out;
}

inline Bytes fixed64(int field, std::uint64_t value) {
  Bytes out;
  append_varint(out, static_cast<std::uint64_t>(field) << 3 | 1);
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
  return out;
}

/// A message, or bytes, as field `field`.
inline Bytes nested(int field, const Bytes& inner) {
  Bytes out;
  append_varint(out, static_cast<std::uint64_t>(field) << 3 | 2);
  append_varint(out, inner.size());
  out.insert(out.end(), inner.begin(), inner.end());
  return out;
}

inline Bytes zeros(int field, std::size_t size) { return nested(field, Bytes(size)); }

}  // namespace covey::wire
