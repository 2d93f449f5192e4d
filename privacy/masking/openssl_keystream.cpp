#include "masking/openssl_keystream.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secret.hpp>
#include <span>

namespace covey::privacy::masking {

namespace {

constexpr std::size_t kRowBytes = 64;
/// Half of a small processor's first-level cache; at least one block of the widest coordinates.
constexpr std::size_t kBufferBytes = 16 * 1024;
static_assert(kBufferBytes >= kRowBytes * PackedFormat::kMaxSumBits);

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

/// AES-CTR counts 16-byte blocks in 128 bits, big-endian. ChaCha20 (RFC 8439) counts 64-byte blocks
/// in 32 bits, little-endian, with a nonce behind.
std::array<unsigned char, 16> counter_of(MaskCipher cipher, std::uint64_t row) {
  std::array<unsigned char, 16> bytes{};
  if (cipher == MaskCipher::kChaCha20) {
    for (std::size_t i = 0; i < 4; ++i) bytes[i] = static_cast<unsigned char>(row >> (8 * i));
    return bytes;
  }
  const std::uint64_t block = row * (kRowBytes / 16);
  for (std::size_t i = 0; i < 8; ++i) {
    bytes[15 - i] = static_cast<unsigned char>(block >> (8 * i));
  }
  return bytes;
}

}  // namespace

struct OpenSslKeystream::State {
  ~State() { wipe(std::as_writable_bytes(std::span(buffer))); }

  MaskCipher cipher{};
  const LaneKernels* lanes = nullptr;
  std::unique_ptr<EVP_CIPHER_CTX, FreeContext> context;
  alignas(64) std::array<unsigned char, kBufferBytes> buffer{};
};

OpenSslKeystream::OpenSslKeystream(std::unique_ptr<State> state) : state_(std::move(state)) {}
OpenSslKeystream::OpenSslKeystream(OpenSslKeystream&&) noexcept = default;
OpenSslKeystream& OpenSslKeystream::operator=(OpenSslKeystream&&) noexcept = default;
OpenSslKeystream::~OpenSslKeystream() = default;

Result<OpenSslKeystream> OpenSslKeystream::make(MaskCipher cipher) {
  auto state = std::make_unique<State>();
  state->cipher = cipher;
  state->lanes = &selected_lanes();
  state->context.reset(EVP_CIPHER_CTX_new());
  const EVP_CIPHER* evp = cipher == MaskCipher::kChaCha20 ? EVP_chacha20() : EVP_aes_128_ctr();
  if (state->context == nullptr ||
      EVP_EncryptInit_ex(state->context.get(), evp, nullptr, nullptr, nullptr) != 1) {
    return failed("OpenSSL cannot make " + std::string(to_string(cipher)) +
                  " keystreams for masks: is a provider missing in its configuration?");
  }
  return OpenSslKeystream(std::move(state));
}

Result<void> OpenSslKeystream::add(const KeystreamTask& task) {
  State& state = *state_;
  const std::size_t block_bytes = kRowBytes * task.rows_per_block;
  const std::size_t buffer_blocks = kBufferBytes / block_bytes;
  const auto counter = counter_of(state.cipher, task.first_row);
  bool good =
      EVP_EncryptInit_ex(state.context.get(), nullptr, nullptr, task.key, counter.data()) == 1;
  std::uint64_t* sum = task.sum;
  for (std::size_t left = task.rows / task.rows_per_block; good && left > 0;) {
    const std::size_t blocks = std::min(left, buffer_blocks);
    const std::size_t bytes = blocks * block_bytes;
    // In place, over zeros: what is left there of the last keystream would be added to this one.
    std::fill_n(state.buffer.data(), bytes, static_cast<unsigned char>(0));
    int written = 0;
    good = EVP_EncryptUpdate(state.context.get(), state.buffer.data(), &written,
                             state.buffer.data(), static_cast<int>(bytes)) == 1;
    if (!good) break;
    const auto add = task.subtract ? state.lanes->subtract : state.lanes->add;
    add(task.rows_per_block, blocks, state.buffer.data(), sum);
    sum += bytes / 8;
    left -= blocks;
  }
  if (!good) return failed("OpenSSL failed while it made a mask's keystream");
  return {};
}

}  // namespace covey::privacy::masking
