#include "secagg/chacha_stream.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <cstring>

namespace covey::privacy {

struct ChaChaStream::Cipher {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  Cipher() = default;
  ~Cipher() { EVP_CIPHER_CTX_free(context); }  // which wipes the key
  Cipher(const Cipher&) = delete;
  Cipher& operator=(const Cipher&) = delete;
};

ChaChaStream::ChaChaStream(std::span<const std::byte, 32> key)
    : cipher_(std::make_unique<Cipher>()) {
  const std::array<unsigned char, 16> start{};  // counter and nonce
  COVEY_ASSERT(cipher_->context != nullptr &&
               EVP_EncryptInit_ex(cipher_->context, EVP_chacha20(), nullptr,
                                  reinterpret_cast<const unsigned char*>(key.data()),
                                  start.data()) == 1);
}

ChaChaStream::~ChaChaStream() = default;

void ChaChaStream::generate(std::span<std::byte> bytes) {
  constexpr std::size_t kMost = std::size_t{1} << 30;  // lengths are int in OpenSSL
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), kMost));
    auto* place = reinterpret_cast<unsigned char*>(part.data());
    int written = 0;
    COVEY_ASSERT(EVP_EncryptUpdate(cipher_->context, place, &written, place,
                                   static_cast<int>(part.size())) == 1);
    bytes = bytes.subspan(part.size());
  }
}

void ChaChaStream::fill(std::span<std::byte> bytes) {
  if (bytes.empty()) return;
  const auto ahead = ahead_.span();
  const std::size_t ready = std::min(bytes.size(), ahead.size() - used_);
  std::memcpy(bytes.data(), ahead.data() + used_, ready);
  used_ += ready;
  bytes = bytes.subspan(ready);
  if (bytes.empty()) return;
  // What is left is a whole number of buffers, made in place, and a start of the next one.
  const std::size_t direct = bytes.size() / ahead.size() * ahead.size();
  generate(bytes.first(direct));
  bytes = bytes.subspan(direct);
  if (bytes.empty()) return;
  generate(ahead);
  std::memcpy(bytes.data(), ahead.data(), bytes.size());
  used_ = bytes.size();
}

std::uint64_t ChaChaStream::next_u64() {
  std::array<std::byte, 8> bytes{};
  fill(bytes);
  std::uint64_t value = 0;  // little-endian, so that every machine draws the same
  for (std::size_t i = 8; i-- > 0;) value = (value << 8) | std::to_integer<std::uint64_t>(bytes[i]);
  return value;
}

std::uint64_t ChaChaStream::below(std::uint64_t bound) {
  COVEY_ASSERT(bound > 0);
  const std::uint64_t excess = (0 - bound) % bound;  // 2^64 mod bound: the draws to reject
  for (;;) {
    const std::uint64_t draw = next_u64();
    if (draw >= excess) return draw % bound;
  }
}

}  // namespace covey::privacy
