#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

/// Streams of bits, the highest bit of a byte first, and the two codes for whole numbers that go
/// into them: Elias-gamma (Elias 1975) and Golomb-Rice (Rice 1979).
namespace covey::compression {

/// Writes to memory that the caller has measured out beforehand.
class BitWriter {
 public:
  explicit BitWriter(std::byte* out) : out_(out) {}

  /// The lowest `count` bits of `value`, the others of which are 0; count <= 32.
  void put(std::uint64_t value, unsigned count) {
    pending_ = pending_ << count | value;
    used_ += count;
    if (used_ < 32) return;
    used_ -= 32;
    const auto word = __builtin_bswap32(static_cast<std::uint32_t>(pending_ >> used_));
    std::memcpy(out_, &word, sizeof word);
    out_ += sizeof word;
  }
  void zeros(std::uint64_t count) {
    for (; count > 32; count -= 32) put(0, 32);
    put(0, static_cast<unsigned>(count));
  }
  /// As many zeros as value has bits behind its first, then value; 1 <= value < 2^32.
  void gamma(std::uint32_t value) {
    const auto bits = static_cast<unsigned>(std::bit_width(value));
    if (bits <= 16) {
      put(value, 2 * bits - 1);
    } else {
      put(0, bits - 1);
      put(value, bits);
    }
  }
  /// value / 2^parameter zeros, a one, and the lowest bits; parameter < 32.
  void rice(std::uint32_t value, unsigned parameter) {
    zeros(value >> parameter);
    put(1, 1);
    put(value & ((std::uint64_t{1} << parameter) - 1), parameter);
  }
  /// Fills the last byte with zeros. Returns where the stream ends; nothing is put behind it.
  std::byte* finish() {
    put(0, (8 - used_ % 8) % 8);
    for (; used_ > 0; used_ -= 8) *out_++ = static_cast<std::byte>(pending_ >> (used_ - 8));
    return out_;
  }
  /// Whole bytes written so far lie before it; fewer than 32 bits are still to come.
  std::byte* position() const { return out_; }
  /// Goes on at `out`, where what has been written was moved to.
  void move_to(std::byte* out) { out_ = out; }

 private:
  std::byte* out_;
  std::uint64_t pending_ = 0;
  unsigned used_ = 0;  ///< lowest bits of pending_ still to be written, below 32 between calls
};

inline unsigned gamma_bits(std::uint32_t value) {
  return 2 * static_cast<unsigned>(std::bit_width(value)) - 1;
}

/// Reads any bytes: behind their end there are zeros, and failed() says that it was reached.
class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint32_t take(unsigned count) {  // at most 32
    const std::uint64_t word = peek();
    at_ += count;
    return count == 0 ? 0 : static_cast<std::uint32_t>(word >> (64 - count));
  }
  /// 0, which is no value, for more than 31 zeros.
  std::uint32_t gamma() {
    const auto zeros = static_cast<unsigned>(std::countl_zero(peek()));
    if (zeros > 31) return 0;
    at_ += zeros;
    return take(zeros + 1);
  }
  /// Above `limit` for any value that is, or for bytes that end before it does.
  std::uint64_t rice(unsigned parameter, std::uint64_t limit) {
    std::uint64_t quotient = 0;
    for (;;) {
      const auto zeros = static_cast<unsigned>(std::countl_zero(peek()));
      if (zeros < kPeeked) {
        quotient += zeros;
        at_ += zeros + 1;
        break;
      }
      quotient += kPeeked;
      at_ += kPeeked;
      if (failed() || quotient > limit >> parameter) return limit + 1;
    }
    return quotient << parameter | take(parameter);
  }
  bool failed() const { return at_ > std::uint64_t{8} * bytes_.size(); }
  /// Everything was read but for fewer than eight zeros.
  bool finished() const {
    if (failed() || std::uint64_t{8} * bytes_.size() - at_ >= 8) return false;
    return peek() == 0;
  }

 private:
  static constexpr unsigned kPeeked = 57;  ///< bits of peek() that are there for every at_

  std::uint64_t peek() const {
    const auto byte = static_cast<std::size_t>(at_ / 8);
    std::uint64_t word = 0;
    if (byte + sizeof word <= bytes_.size()) {
      std::memcpy(&word, bytes_.data() + byte, sizeof word);
    } else if (byte < bytes_.size()) {
      std::memcpy(&word, bytes_.data() + byte, bytes_.size() - byte);
    }
    return __builtin_bswap64(word) << (at_ % 8);
  }

  std::span<const std::byte> bytes_;
  std::uint64_t at_ = 0;  ///< bits
};

}  // namespace covey::compression
