#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <covey/digest.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/privacy/mask.hpp>
#include <cstdint>
#include <memory>
#include <span>

#include "client/daemon/covey_client/self_test_checks.hpp"

namespace covey::client {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype([](EVP_PKEY* key) { EVP_PKEY_free(key); })>;
using KeyContext =
    std::unique_ptr<EVP_PKEY_CTX,
                    decltype([](EVP_PKEY_CTX* context) { EVP_PKEY_CTX_free(context); })>;

std::vector<std::uint8_t> from_hex(std::string_view text) {
  const auto nibble = [](char c) {
    return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
  };
  std::vector<std::uint8_t> bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
  }
  return bytes;
}

/// The first 16 bytes of the keystream of a key of zeros, as they enter a sum.
Result<void> check_keystream(MaskCipher cipher, std::string_view name, std::string_view expected) {
  // Two rows of eight 64-bit lanes, which is what the keystream is read as, little-endian.
  const privacy::PackedFormat format{.sum_bits = 2, .coordinates = 512};
  std::vector<std::uint64_t> sum(format.words());
  const std::array<privacy::MaskKey, 1> keys{};
  COVEY_TRY(privacy::apply_masks(cipher, format, keys, sum));
  std::vector<std::uint8_t> stream;
  for (unsigned byte = 0; byte < 16; ++byte) {
    stream.push_back(static_cast<std::uint8_t>(sum[byte / 8] >> (8 * (byte % 8))));
  }
  if (stream == from_hex(expected)) return {};
  return failed(std::string(name) + " gives another keystream than it should");
}

}  // namespace

Result<std::string> check_hash() {
  // FIPS 180-4, "abc".
  constexpr std::string_view kExpected =
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  if (sha256(std::as_bytes(std::span("abc", 3))).hex() == kExpected) return std::string("SHA-256");
  return failed("SHA-256 gives another hash than it should");
}

Result<std::string> check_mask_ciphers() {
  // Block 0 of both: AES-128 of zeros under a key of zeros (the GCM specification's test case 1,
  // its H), RFC 8439, A.1, test vector 1.
  COVEY_TRY(
      check_keystream(MaskCipher::kAes128Ctr, "AES-128-CTR", "66e94bd4ef8a2c3b884cfa59ca342b2e"));
  COVEY_TRY(check_keystream(MaskCipher::kChaCha20, "ChaCha20", "76b8e0ada0f13d90405d6ae55386bd28"));
  return "AES-128-CTR and ChaCha20, by " + std::string(privacy::keystream_isa());
}

Result<std::string> check_key_agreement() {
  // RFC 7748, section 5.2, the first vector.
  const auto scalar = from_hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
  const auto point = from_hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
  const auto expected =
      from_hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
  const Key own(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, scalar.data(), scalar.size()));
  const Key peer(EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, point.data(), point.size()));
  const KeyContext context(own ? EVP_PKEY_CTX_new(own.get(), nullptr) : nullptr);
  std::vector<std::uint8_t> secret(32);
  std::size_t length = secret.size();
  if (!context || !peer || EVP_PKEY_derive_init(context.get()) != 1 ||
      EVP_PKEY_derive_set_peer(context.get(), peer.get()) != 1 ||
      EVP_PKEY_derive(context.get(), secret.data(), &length) != 1) {
    return failed("this system's OpenSSL cannot do X25519");
  }
  if (secret == expected) return std::string("X25519");
  return failed("X25519 gives another secret than it should");
}

Result<std::string> check_signatures() {
  // RFC 8032, section 7.1, test 1: the signature of nothing.
  constexpr const char* kKey =
      "-----BEGIN PRIVATE KEY-----\n"
      "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
      "-----END PRIVATE KEY-----\n";
  const auto expected = from_hex(
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
      "b46b"
      "d25bf5f0595bbe24655141438e7a100b");
  COVEY_ASSIGN(const auto identity, privacy::Identity::from_pem(kKey));
  Signature signature = identity.sign({});
  if (!std::equal(signature.begin(), signature.end(), expected.begin(), expected.end())) {
    return failed("Ed25519 gives another signature than it should");
  }
  COVEY_TRY(privacy::check_signature(identity.public_key(), {}, signature));
  signature[0] ^= 1;
  if (privacy::check_signature(identity.public_key(), {}, signature).ok()) {
    return failed("Ed25519 takes a wrong signature for a right one");
  }
  return std::string("Ed25519");
}

}  // namespace covey::client
