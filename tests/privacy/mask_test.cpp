#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <covey/privacy/mask.hpp>
#include <covey/random.hpp>
#include <cstdlib>
#include <memory>
#include <vector>

#include "masking/instruction_set.hpp"
#include "masking/mask_kernels.hpp"

using namespace covey;
using namespace covey::privacy;
using masking::KeystreamKernel;

namespace {

using Words = std::vector<std::uint64_t>;

constexpr std::uint64_t kSeed = 21;

/// The first bytes of the keystream, straight from OpenSSL with counter and nonce zero.
std::vector<std::uint8_t> openssl_keystream(MaskCipher cipher, const Secret<32>& key,
                                            std::size_t bytes) {
  const std::array<unsigned char, 16> zero{};
  std::vector<std::uint8_t> stream(bytes);
  std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)> context(EVP_CIPHER_CTX_new(),
                                                                     EVP_CIPHER_CTX_free);
  const EVP_CIPHER* evp = cipher == MaskCipher::kAes128Ctr ? EVP_aes_128_ctr() : EVP_chacha20();
  REQUIRE(EVP_EncryptInit_ex(context.get(), evp, nullptr, key.data(), zero.data()) == 1);
  int written = 0;
  REQUIRE(EVP_EncryptUpdate(context.get(), stream.data(), &written, stream.data(),
                            static_cast<int>(bytes)) == 1);
  return stream;
}

Words as_words(const std::vector<std::uint8_t>& bytes) {
  Words words(bytes.size() / 8);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    words[i / 8] |= static_cast<std::uint64_t>(bytes[i]) << (8 * (i % 8));
  }
  return words;
}

/// sum + mask or sum - mask as integers of 64 m bits, lane by lane.
void apply_by_definition(MaskCipher cipher, const PackedFormat& format, const MaskKey& mask,
                         Words& sum) {
  const Words stream = as_words(openssl_keystream(cipher, mask.key, format.bytes()));
  for (std::size_t block = 0; block < format.blocks(); ++block) {
    for (std::size_t lane = 0; lane < 8; ++lane) {
      unsigned __int128 carry = mask.subtract ? 1 : 0;
      for (std::size_t row = 0; row < format.sum_bits; ++row) {
        const std::size_t i = block * format.block_words() + row * 8 + lane;
        carry += sum[i];
        carry += mask.subtract ? ~stream[i] : stream[i];
        sum[i] = static_cast<std::uint64_t>(carry);
        carry >>= 64;
      }
    }
  }
}

std::vector<MaskKey> random_masks(RandomStream& random, std::size_t count) {
  std::vector<MaskKey> masks(count);
  for (auto& mask : masks) {
    for (std::size_t i = 0; i < 32; ++i) {
      mask.key.data()[i] = static_cast<std::uint8_t>(random.below(256));
    }
    mask.subtract = random.below(2) == 1;
  }
  return masks;
}

Words random_words(RandomStream& random, std::size_t count) {
  Words words(count);
  for (auto& word : words) word = random.next_u64();
  return words;
}

std::vector<std::pair<KeystreamKernel, MaskCipher>> available_kernels() {
  std::vector<std::pair<KeystreamKernel, MaskCipher>> all;
  for (const auto kernel : masking::kAllKeystreamKernels) {
    for (const auto cipher : {MaskCipher::kAes128Ctr, MaskCipher::kChaCha20}) {
      if (masking::available(kernel, cipher)) all.emplace_back(kernel, cipher);
    }
  }
  return all;
}

/// Puts COVEY_ISA back as it was.
class WithInstructionSet {
 public:
  explicit WithInstructionSet(const char* value) {
    if (const char* before = std::getenv("COVEY_ISA")) before_ = before;
    setenv("COVEY_ISA", value, 1);
  }
  ~WithInstructionSet() { setenv("COVEY_ISA", before_.c_str(), 1); }

 private:
  std::string before_;
};

Secret<32> key_of(std::initializer_list<int> bytes) {
  Secret<32> key;
  std::size_t i = 0;
  for (const int byte : bytes) key.data()[i++] = static_cast<std::uint8_t>(byte);
  return key;
}

}  // namespace

TEST_CASE("AES masks are AES-128 of the counter: NIST's key, blocks 0 and 1 as ECB makes them") {
  // NIST SP 800-38A, F.1.1's key.
  const Secret<32> key = key_of({0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15,
                                 0x88, 0x09, 0xcf, 0x4f, 0x3c});
  std::array<std::uint8_t, 32> blocks{};
  blocks[31] = 1;
  std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)> context(EVP_CIPHER_CTX_new(),
                                                                     EVP_CIPHER_CTX_free);
  REQUIRE(EVP_EncryptInit_ex(context.get(), EVP_aes_128_ecb(), nullptr, key.data(), nullptr) == 1);
  int written = 0;
  REQUIRE(EVP_EncryptUpdate(context.get(), blocks.data(), &written, blocks.data(), 32) == 1);
  const PackedFormat format{2, 1};
  for (const auto& [kernel, cipher] : available_kernels()) {
    if (cipher != MaskCipher::kAes128Ctr) continue;
    CAPTURE(masking::to_string(kernel));
    Words sum(format.words());
    const MaskKey mask{key, false};
    REQUIRE(masking::apply_masks_on(kernel, cipher, format, {&mask, 1}, sum, 1).ok());
    REQUIRE(Words(sum.begin(), sum.begin() + 4) == as_words({blocks.begin(), blocks.end()}));
  }
}

TEST_CASE("AES masks of SP 800-38A's key give known bytes") {
  // 7df76b0c1ab899b3 3e42f047b91b546f, AES-128 of the zero block under F.1.1's key, by
  // openssl enc -aes-128-ctr -K 2b7e151628aed2a6abf7158809cf4f3c -iv 0 on zeros.
  const Secret<32> key = key_of({0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15,
                                 0x88, 0x09, 0xcf, 0x4f, 0x3c});
  const PackedFormat format{2, 1};
  const MaskKey mask{key, false};
  for (const auto& [kernel, cipher] : available_kernels()) {
    if (cipher != MaskCipher::kAes128Ctr) continue;
    CAPTURE(masking::to_string(kernel));
    Words sum(format.words());
    REQUIRE(masking::apply_masks_on(kernel, cipher, format, {&mask, 1}, sum, 1).ok());
    REQUIRE(sum[0] == 0xb399b81a0c6bf77d);
    REQUIRE(sum[1] == 0x6f541bb947f0423e);
  }
}

TEST_CASE("ChaCha20 masks are RFC 8439's stream of a zero key") {
  // RFC 8439, A.1, test vector 1 (key, nonce and counter zero): 76 b8 e0 ad a0 f1 3d 90 ...; test
  // vector 2 (counter 1) starts 9f 07 e7 be 55 51 38 7a.
  const PackedFormat format{2, 1};
  const MaskKey mask{};
  Words sum(format.words());
  REQUIRE(apply_masks(MaskCipher::kChaCha20, format, {&mask, 1}, sum).ok());
  REQUIRE(sum[0] == 0x903df1a0ade0b876);
  REQUIRE(sum[8] == 0x7a385155bee7079f);
}

TEST_CASE("every kernel adds and subtracts what the definition says, at every width") {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration);
  INFO("seed " << kSeed);
  for (std::uint32_t m = PackedFormat::kMinSumBits; m <= PackedFormat::kMaxSumBits; ++m) {
    // Up to 7 blocks: less than a group of 64 rows, several, and ends at any row of one.
    const PackedFormat format{m, 1 + random.below(7 * 512)};
    const auto masks = random_masks(random, 3);
    const Words start = random_words(random, format.words());
    Words expected[2] = {start, start};
    for (const auto& mask : masks) {
      apply_by_definition(MaskCipher::kAes128Ctr, format, mask, expected[0]);
      apply_by_definition(MaskCipher::kChaCha20, format, mask, expected[1]);
    }
    for (const auto& [kernel, cipher] : available_kernels()) {
      CAPTURE(m, format.coordinates, masking::to_string(kernel), to_string(cipher));
      Words sum = start;
      REQUIRE(masking::apply_masks_on(kernel, cipher, format, masks, sum, 1).ok());
      REQUIRE(sum == expected[cipher == MaskCipher::kChaCha20 ? 1 : 0]);
    }
  }
}

TEST_CASE("long vectors with many masks are the same on one thread and on three") {
  RandomStream random(kSeed + 1, RandomPurpose::kDataGeneration);
  INFO("seed " << kSeed + 1);
  // 1.1 MB of 21 bits: several chunks that start at odd rows, and counters above 2^16.
  const PackedFormat format{21, 421'337};
  const auto masks = random_masks(random, 9);
  const Words start = random_words(random, format.words());
  for (const auto cipher : {MaskCipher::kAes128Ctr, MaskCipher::kChaCha20}) {
    Words expected = start;
    for (const auto& mask : masks) apply_by_definition(cipher, format, mask, expected);
    for (const auto& [kernel, of] : available_kernels()) {
      if (of != cipher) continue;
      for (const unsigned threads : {1u, 3u}) {
        CAPTURE(masking::to_string(kernel), to_string(cipher), threads);
        Words sum = start;
        REQUIRE(masking::apply_masks_on(kernel, cipher, format, masks, sum, threads).ok());
        REQUIRE(sum == expected);
      }
    }
  }
}

TEST_CASE("carries run through words of ones, and borrows through zeros") {
  RandomStream random(kSeed + 2, RandomPurpose::kDataGeneration);
  const PackedFormat format{23, 512};
  for (const auto& [kernel, cipher] : available_kernels()) {
    CAPTURE(masking::to_string(kernel), to_string(cipher));
    const MaskKey mask = random_masks(random, 1).front();
    // The complement of the keystream, but one more in the lowest row: every sum of a row is 2^64 -
    // 1 and the carry must pass through all of them, to zero.
    Words sum = as_words(openssl_keystream(cipher, mask.key, format.bytes()));
    for (auto& word : sum) word = ~word;
    for (std::size_t lane = 0; lane < 8; ++lane) {
      for (std::size_t row = 0; row < 23 && ++sum[row * 8 + lane] == 0; ++row) {
      }
    }
    const Words before = sum;
    MaskKey plus = mask, minus = mask;
    plus.subtract = false;
    minus.subtract = true;
    REQUIRE(masking::apply_masks_on(kernel, cipher, format, {&plus, 1}, sum, 1).ok());
    REQUIRE(std::ranges::all_of(sum, [](std::uint64_t word) { return word == 0; }));
    REQUIRE(masking::apply_masks_on(kernel, cipher, format, {&minus, 1}, sum, 1).ok());
    REQUIRE(sum == before);
  }
}

TEST_CASE("a mask that one device adds and another subtracts leaves the sum of both plain") {
  RandomStream random(kSeed + 3, RandomPurpose::kDataGeneration);
  const PackedFormat format{17, 3000};
  for (const auto cipher : {MaskCipher::kAes128Ctr, MaskCipher::kChaCha20}) {
    std::vector<std::int64_t> plain(format.coordinates);
    Words sum(format.words());
    const auto shared = random_masks(random, 4);
    for (const bool first : {true, false}) {
      std::vector<std::int64_t> values(format.coordinates);
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<std::int64_t>(random.below(1 << 16));
        plain[i] += values[i];
      }
      Words words(format.words());
      pack(format, values, words);
      auto masks = shared;
      for (auto& mask : masks) mask.subtract = mask.subtract != first;
      const Words unmasked = words;
      REQUIRE(apply_masks(cipher, format, masks, words).ok());
      REQUIRE(words != unmasked);
      add_packed(format, std::as_bytes(std::span(words)), sum);
    }
    std::vector<std::int64_t> unpacked(format.coordinates);
    unpack(format, sum, unpacked);
    REQUIRE(unpacked == plain);
  }
}

TEST_CASE("masks of different keys differ in every word") {
  RandomStream random(kSeed + 4, RandomPurpose::kDataGeneration);
  const PackedFormat format{16, 512};
  for (const auto cipher : {MaskCipher::kAes128Ctr, MaskCipher::kChaCha20}) {
    auto masks = random_masks(random, 2);
    masks[1] = masks[0];
    masks[1].key.data()[15] ^= 1;  // the last byte that both ciphers use
    Words first(format.words()), second(format.words());
    REQUIRE(apply_masks(cipher, format, {&masks[0], 1}, first).ok());
    REQUIRE(apply_masks(cipher, format, {&masks[1], 1}, second).ok());
    std::size_t equal = 0;
    for (std::size_t i = 0; i < first.size(); ++i) equal += first[i] == second[i] ? 1 : 0;
    REQUIRE(equal == 0);
  }
}

TEST_CASE("no masks leave the sum alone") {
  Words sum(PackedFormat{9, 5}.words(), 7);
  REQUIRE(apply_masks(MaskCipher::kAes128Ctr, {9, 5}, {}, sum, 2).ok());
  REQUIRE(sum == Words(sum.size(), 7));
}

TEST_CASE("a sum of another size, or a width that has no layout, is refused with a sentence") {
  const MaskKey mask{};
  Words sum(PackedFormat{9, 5}.words(), 7);
  const auto longer = apply_masks(MaskCipher::kAes128Ctr, {10, 5}, {&mask, 1}, sum);
  REQUIRE(!longer.ok());
  REQUIRE(longer.error().message ==
          "a packed sum of 5 coordinates of 10 bits has 80 words, not 72");
  REQUIRE(!apply_masks(MaskCipher::kAes128Ctr, {1, 5}, {&mask, 1}, sum).ok());
  REQUIRE(!apply_masks(MaskCipher::kAes128Ctr, {57, 5}, {&mask, 1}, sum).ok());
  REQUIRE(!apply_masks(MaskCipher::kAes128Ctr, {9, 5}, {&mask, 1}, sum, 0).ok());
  REQUIRE(sum == Words(sum.size(), 7));
}

TEST_CASE("COVEY_ISA lowers the kernel and nothing else") {
  const auto set = masking::processor_instruction_set();
  {
    const WithInstructionSet lowered("sse2");
    REQUIRE(keystream_isa() == "openssl");
  }
  {
    const WithInstructionSet lowered("avx2");
    if (set.vaes) REQUIRE(keystream_isa() == "vaes-avx2");
    if (set.aes && !set.vaes) REQUIRE(keystream_isa() == "aes-ni");
  }
  const WithInstructionSet all("");
  if (set.vaes && set.avx512) REQUIRE(keystream_isa() == "vaes-avx512");
  if (set.armv8_aes) REQUIRE(keystream_isa() == "armv8-aes");
}
