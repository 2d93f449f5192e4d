#include "bench_floor.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <covey/privacy/mask.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace covey {
namespace {

using Clock = std::chrono::steady_clock;

/// A piece of sum per thread that stays in any second-level cache.
constexpr std::size_t kSumBytesPerThread = 128 * 1024;
/// So many that starting the threads (about 30 us) does not show.
constexpr std::size_t kMasks = 512;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Seconds of one call of `work`, which returns false on failure: the least over at least five,
/// since a floor is what the machine can do when nothing else wants it.
template <typename Work>
std::optional<double> time_of(double seconds, const Work& work) {
  if (!work()) return std::nullopt;  // warms the caches
  std::vector<double> times;
  const auto start = Clock::now();
  while (times.size() < 5 || seconds_since(start) < seconds) {
    const auto begin = Clock::now();
    if (!work()) return std::nullopt;
    times.push_back(seconds_since(begin));
  }
  return *std::min_element(times.begin(), times.end());
}

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeKeyContext {
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
};
struct FreeCipherContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Key = std::unique_ptr<EVP_PKEY, FreeKey>;

std::optional<double> x25519_seconds(double seconds) {
  const Key own(EVP_PKEY_Q_keygen(nullptr, nullptr, "X25519"));
  const Key peer(EVP_PKEY_Q_keygen(nullptr, nullptr, "X25519"));
  if (own == nullptr || peer == nullptr) return std::nullopt;
  const std::unique_ptr<EVP_PKEY_CTX, FreeKeyContext> context(EVP_PKEY_CTX_new(own.get(), nullptr));
  if (context == nullptr || EVP_PKEY_derive_init(context.get()) != 1 ||
      EVP_PKEY_derive_set_peer(context.get(), peer.get()) != 1) {
    return std::nullopt;
  }
  constexpr int kPerPiece = 32;
  const auto piece = time_of(seconds, [&context] {
    for (int i = 0; i < kPerPiece; ++i) {
      std::array<unsigned char, 32> secret{};
      std::size_t length = secret.size();
      if (EVP_PKEY_derive(context.get(), secret.data(), &length) != 1) return false;
    }
    return true;
  });
  if (!piece) return std::nullopt;
  return *piece / kPerPiece;
}

}  // namespace

Result<double> measure_keystream(MaskCipher cipher, std::uint32_t sum_bits, unsigned threads,
                                 double seconds) {
  privacy::PackedFormat format{sum_bits, 1};
  const std::size_t blocks = std::max<std::size_t>(1, kSumBytesPerThread / format.bytes());
  format.coordinates = blocks * threads * privacy::PackedFormat::kBlockCoordinates;
  std::vector<std::uint64_t> sum(format.words());
  std::vector<privacy::MaskKey> masks(kMasks);
  for (std::size_t i = 0; i < kMasks; ++i) {
    masks[i].key.data()[0] = static_cast<std::uint8_t>(i);
    masks[i].key.data()[1] = static_cast<std::uint8_t>(i >> 8);
    masks[i].subtract = i % 2 == 1;
  }
  Result<void> status;
  const auto time = time_of(seconds, [&] {
    status = privacy::apply_masks(cipher, format, masks, sum, threads);
    return status.ok();
  });
  COVEY_TRY(std::move(status));
  return static_cast<double>(format.bytes()) * kMasks / 1e9 / *time;
}

Result<double> measure_openssl_aes(double seconds) {
  std::vector<unsigned char> buffer(16 * 1024);
  const std::array<unsigned char, 16> key{}, counter{};
  const std::unique_ptr<EVP_CIPHER_CTX, FreeCipherContext> context(EVP_CIPHER_CTX_new());
  if (context == nullptr || EVP_EncryptInit_ex(context.get(), EVP_aes_128_ctr(), nullptr,
                                               key.data(), counter.data()) != 1) {
    return failed("OpenSSL has no AES-128-CTR here");
  }
  constexpr int kPerPiece = 64;
  const auto time = time_of(seconds, [&] {
    for (int i = 0; i < kPerPiece; ++i) {
      int written = 0;
      if (EVP_EncryptUpdate(context.get(), buffer.data(), &written, buffer.data(),
                            static_cast<int>(buffer.size())) != 1) {
        return false;
      }
    }
    return true;
  });
  if (!time) return failed("OpenSSL's AES-128-CTR failed");
  return static_cast<double>(buffer.size()) * kPerPiece / 1e9 / *time;
}

Result<double> measure_x25519(unsigned threads, double seconds) {
  std::vector<std::optional<double>> times(threads);
  try {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < threads; ++i) {
      workers.emplace_back([&times, i, seconds] { times[i] = x25519_seconds(seconds); });
    }
  } catch (const std::system_error&) {
    return failed("the system gives no " + std::to_string(threads) + " threads to measure with");
  }
  double total = 0;
  for (const auto& time : times) {
    if (!time) return failed("OpenSSL's X25519 failed");
    total += *time;
  }
  return 1e6 * total / threads;
}

Result<MaskingFloor> measure_floor(MaskCipher cipher, std::uint32_t sum_bits, unsigned threads,
                                   double seconds) {
  MaskingFloor floor;
  COVEY_ASSIGN(floor.keystream_gb_per_s, measure_keystream(cipher, sum_bits, threads, seconds / 2));
  COVEY_ASSIGN(floor.x25519_us, measure_x25519(threads, seconds / 2));
  return floor;
}

}  // namespace covey
