#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <covey/privacy/secret.hpp>
#include <cstring>
#include <string_view>

#include "secagg/chacha_stream.hpp"

namespace covey::privacy {

void wipe(std::span<std::byte> bytes) noexcept { OPENSSL_cleanse(bytes.data(), bytes.size()); }

namespace {

// Counts forks, in the child: bytes that were drawn ahead must not serve both processes. OpenSSL's
// own generator reseeds by itself.
std::atomic<unsigned> forks{0};

unsigned fork_count() {
  static const bool watching = [] {
    return pthread_atfork(nullptr, nullptr,
                          [] { forks.fetch_add(1, std::memory_order_relaxed); }) == 0;
  }();
  // Without the watch nothing may be kept from one call to the next: every call looks like a fork.
  return watching ? forks.load(std::memory_order_relaxed)
                  : forks.fetch_add(1, std::memory_order_relaxed);
}

Result<void> draw(std::span<std::byte> bytes) {
  constexpr std::size_t kMost = std::size_t{1} << 30;  // lengths are int in OpenSSL
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), kMost));
    if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(part.data()),
                        static_cast<int>(part.size())) != 1) {
      return failed("the system's random generator gave no bytes, so no key can be made");
    }
    bytes = bytes.subspan(part.size());
  }
  return {};
}

class SystemSecrets final : public SecretSource {
 public:
  Result<void> fill(std::span<std::byte> bytes) override {
    if (bytes.empty()) return {};
    const auto ahead = ahead_.span();
    if (const unsigned now = fork_count(); now != forks_) {
      forks_ = now;
      used_ = ahead.size();
    }
    if (bytes.size() > ahead.size()) return draw(bytes);
    if (bytes.size() > ahead.size() - used_) {
      used_ = ahead.size();  // so that a failed draw leaves nothing to hand out
      COVEY_TRY(draw(ahead));
      used_ = 0;
    }
    const auto part = ahead.subspan(used_, bytes.size());
    std::memcpy(bytes.data(), part.data(), part.size());
    wipe(part);
    used_ += part.size();
    return {};
  }

 private:
  // A call of the generator costs 0.6 us however few bytes it gives.
  Secret<4096> ahead_;
  std::size_t used_ = 4096;
  unsigned forks_ = fork_count();
};

class SeededSecrets final : public SecretSource {
 public:
  explicit SeededSecrets(const Secret<32>& key) : stream_(key.span()) {}
  Result<void> fill(std::span<std::byte> bytes) override {
    stream_.fill(bytes);
    return {};
  }

 private:
  ChaChaStream stream_;
};

}  // namespace

std::unique_ptr<SecretSource> system_secrets() { return std::make_unique<SystemSecrets>(); }

std::unique_ptr<SecretSource> seeded_secrets(std::uint64_t seed, RoundNumber round, ClientId client,
                                             std::uint64_t stream) {
  constexpr std::string_view kLabel = "covey seeded secrets v1";
  Sha256 hash;
  hash.update(std::as_bytes(std::span(kLabel)));
  for (std::uint64_t value :
       {seed, std::uint64_t{value_of(round)}, std::uint64_t{value_of(client)}, stream}) {
    std::array<std::byte, 8> bytes{};  // little-endian
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(value & 0xff);
      value >>= 8;
    }
    hash.update(bytes);
  }
  return std::make_unique<SeededSecrets>(Secret<32>(hash.finish().bytes));
}

}  // namespace covey::privacy
