#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <covey/assert.hpp>
#include <covey/privacy/mask.hpp>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "masking/instruction_set.hpp"
#include "masking/mask_kernels.hpp"
#include "masking/openssl_keystream.hpp"

namespace covey::privacy {

namespace masking {

namespace {

constexpr std::size_t kRowBytes = 64;
/// What of the sum is worked on at a time, under all masks: half of the smallest second-level
/// caches in use (256 KiB), so that it stays there; re-keying is 1% of the work on it. Larger is no
/// faster.
constexpr std::size_t kChunkBytes = 128 * 1024;
/// Below this much keystream per thread (about 40 us) starting one costs more than it saves.
constexpr std::uint64_t kThreadBytes = 1 << 20;

/// Counters must not repeat. ChaCha20 counts rows in 32 bits; the AES kernels' tables hold for 2^40
/// blocks of 16 bytes.
constexpr std::uint64_t kMaxChaChaRows = std::uint64_t{1} << 32;
constexpr std::uint64_t kMaxAesRows = std::uint64_t{1} << 38;

AddKeystream fused_kernel(KeystreamKernel kernel) {
  switch (kernel) {
    case KeystreamKernel::kOpenSsl:
      return nullptr;
    case KeystreamKernel::kAesNi:
      return aes_ctr_aesni();
    case KeystreamKernel::kArmv8Aes:
      return aes_ctr_armv8();
    case KeystreamKernel::kVaesAvx2:
      return aes_ctr_vaes256();
    case KeystreamKernel::kVaesAvx512:
      return aes_ctr_vaes512();
  }
  COVEY_ASSERT(false);
}

bool runs_on(const InstructionSet& set, KeystreamKernel kernel) {
  switch (kernel) {
    case KeystreamKernel::kOpenSsl:
      return true;
    case KeystreamKernel::kAesNi:
      return set.aes;
    case KeystreamKernel::kArmv8Aes:
      return set.armv8_aes;
    case KeystreamKernel::kVaesAvx2:
      return set.vaes && set.avx2;
    case KeystreamKernel::kVaesAvx512:
      return set.vaes && set.avx512;
  }
  return false;
}

bool makes(KeystreamKernel kernel, MaskCipher cipher) {
  if (kernel == KeystreamKernel::kOpenSsl) return true;
  return cipher == MaskCipher::kAes128Ctr && fused_kernel(kernel) != nullptr;
}

/// One thread's means to add keystreams; what it derived from keys is wiped with it.
class KeystreamAdder {
 public:
  KeystreamAdder() = default;
  KeystreamAdder(const KeystreamAdder&) = delete;
  KeystreamAdder& operator=(const KeystreamAdder&) = delete;
  ~KeystreamAdder() { wipe(std::as_writable_bytes(std::span(&workspace_, 1))); }

  Result<void> prepare(KeystreamKernel kernel, MaskCipher cipher) {
    fused_ = fused_kernel(kernel);
    if (fused_ != nullptr) return {};
    COVEY_ASSIGN(openssl_, OpenSslKeystream::make(cipher));
    return {};
  }
  Result<void> add(const KeystreamTask& task) {
    if (fused_ == nullptr) return openssl_->add(task);
    fused_(task, workspace_);
    return {};
  }

 private:
  AddKeystream fused_ = nullptr;
  std::optional<OpenSslKeystream> openssl_;
  KeystreamWorkspace workspace_{};
};

/// The sum cut in chunks of blocks that threads take one after the other.
class Masking {
 public:
  Masking(const PackedFormat& format, std::span<const MaskKey> masks, std::span<std::uint64_t> sum,
          unsigned threads)
      : format_(format), masks_(masks), sum_(sum) {
    const std::size_t chunk_blocks =
        std::max<std::size_t>(1, kChunkBytes / (kRowBytes * format.sum_bits));
    // As many chunks for each thread, all of nearly one size: nobody waits for a last one.
    const std::size_t chunks = (format.blocks() + chunk_blocks - 1) / chunk_blocks;
    chunks_ = std::min(format.blocks(), (chunks + threads - 1) / threads * threads);
  }

  std::size_t chunks() const { return chunks_; }

  Result<void> work(KeystreamKernel kernel, MaskCipher cipher) {
    KeystreamAdder adder;
    COVEY_TRY(adder.prepare(kernel, cipher));
    for (std::size_t chunk = next_++; chunk < chunks_; chunk = next_++) {
      const std::size_t first = first_block(chunk);
      KeystreamTask task;
      task.rows_per_block = format_.sum_bits;
      task.first_row = static_cast<std::uint64_t>(first) * format_.sum_bits;
      task.rows = (first_block(chunk + 1) - first) * format_.sum_bits;
      task.sum = sum_.data() + first * format_.block_words();
      for (const MaskKey& mask : masks_) {
        task.key = mask.key.data();
        task.subtract = mask.subtract;
        COVEY_TRY(adder.add(task));
      }
    }
    return {};
  }

 private:
  std::size_t first_block(std::size_t chunk) const {
    const std::size_t share = format_.blocks() / chunks_, rest = format_.blocks() % chunks_;
    return chunk * share + std::min(chunk, rest);
  }

  const PackedFormat& format_;
  std::span<const MaskKey> masks_;
  std::span<std::uint64_t> sum_;
  std::size_t chunks_ = 1;
  std::atomic<std::size_t> next_{0};
};

Result<void> check(MaskCipher cipher, const PackedFormat& format, std::span<std::uint64_t> sum,
                   unsigned threads) {
  if (format.sum_bits < PackedFormat::kMinSumBits || format.sum_bits > PackedFormat::kMaxSumBits ||
      format.coordinates == 0) {
    return invalid_argument(fmt::format(
        "masks need 1 or more coordinates of {} to {} bits, not {} of {}",
        PackedFormat::kMinSumBits, PackedFormat::kMaxSumBits, format.coordinates, format.sum_bits));
  }
  if (threads == 0) return invalid_argument("masks need at least one thread");
  if (sum.size() != format.words()) {
    return invalid_argument(
        fmt::format("a packed sum of {} coordinates of {} bits has {} words, not {}",
                    format.coordinates, format.sum_bits, format.words(), sum.size()));
  }
  const std::uint64_t rows = static_cast<std::uint64_t>(format.blocks()) * format.sum_bits;
  const std::uint64_t most = cipher == MaskCipher::kChaCha20 ? kMaxChaChaRows : kMaxAesRows;
  if (rows > most) {
    return invalid_argument(
        fmt::format("one {} mask covers at most {} GiB, not {} coordinates of {} bits",
                    to_string(cipher), most >> 24, format.coordinates, format.sum_bits));
  }
  return {};
}

}  // namespace

std::string_view to_string(KeystreamKernel kernel) {
  switch (kernel) {
    case KeystreamKernel::kOpenSsl:
      return "openssl";
    case KeystreamKernel::kAesNi:
      return "aes-ni";
    case KeystreamKernel::kArmv8Aes:
      return "armv8-aes";
    case KeystreamKernel::kVaesAvx2:
      return "vaes-avx2";
    case KeystreamKernel::kVaesAvx512:
      return "vaes-avx512";
  }
  return "unknown";
}

bool available(KeystreamKernel kernel, MaskCipher cipher) {
  return makes(kernel, cipher) && runs_on(processor_instruction_set(), kernel);
}

KeystreamKernel selected_kernel(MaskCipher cipher) {
  const InstructionSet set = allowed_instruction_set();
  auto best = KeystreamKernel::kOpenSsl;
  for (const KeystreamKernel kernel : kAllKeystreamKernels) {
    if (makes(kernel, cipher) && runs_on(set, kernel)) best = kernel;
  }
  return best;
}

Result<void> apply_masks_on(KeystreamKernel kernel, MaskCipher cipher, const PackedFormat& format,
                            std::span<const MaskKey> masks, std::span<std::uint64_t> sum,
                            unsigned threads) {
  COVEY_TRY(check(cipher, format, sum, threads));
  COVEY_ASSERT(available(kernel, cipher));
  if (masks.empty()) return {};
  const std::uint64_t keystream_bytes = static_cast<std::uint64_t>(format.bytes()) * masks.size();
  const auto useful =
      static_cast<unsigned>(std::clamp<std::uint64_t>(keystream_bytes / kThreadBytes, 1, threads));
  Masking masking(format, masks, sum, useful);
  const std::size_t helpers = std::min<std::size_t>(useful, masking.chunks()) - 1;
  std::vector<std::optional<Error>> errors(helpers);
  std::vector<std::jthread> started;
  started.reserve(helpers);
  try {
    for (std::size_t i = 0; i < helpers; ++i) {
      started.emplace_back([&masking, &errors, kernel, cipher, i] {
        if (auto done = masking.work(kernel, cipher); !done.ok()) errors[i] = done.error();
      });
    }
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the work of the others, too.
  }
  auto done = masking.work(kernel, cipher);
  started.clear();
  COVEY_TRY(std::move(done));
  for (auto& error : errors) {
    if (error) return std::move(*error);
  }
  return {};
}

}  // namespace masking

Result<void> apply_masks(MaskCipher cipher, const PackedFormat& format,
                         std::span<const MaskKey> masks, std::span<std::uint64_t> sum,
                         unsigned threads) {
  return masking::apply_masks_on(masking::selected_kernel(cipher), cipher, format, masks, sum,
                                 threads);
}

std::string_view keystream_isa() {
  return masking::to_string(masking::selected_kernel(MaskCipher::kAes128Ctr));
}

}  // namespace covey::privacy
