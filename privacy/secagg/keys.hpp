#pragma once

#include <covey/digest.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <cstddef>
#include <span>
#include <vector>

/// The primitives of secure aggregation, over OpenSSL. All constant-time in their secrets.
namespace covey::privacy {

struct KeyPair {
  Secret<32> secret;
  PublicKey public_key{};
  static Result<KeyPair> make(SecretSource& secrets);  ///< X25519
};
/// The public key that belongs to an X25519 secret.
Result<PublicKey> public_key_of(const Secret<32>& secret);

/// HKDF-SHA256 (RFC 5869); at most 255 * 32 bytes of output.
void hkdf_sha256(std::span<const std::byte> salt, std::span<const std::byte> input,
                 std::span<const std::byte> info, std::span<std::byte> output);
/// X25519 (RFC 7748): the shared coordinate, as an input of a key derivation. Error: `peer` is a
/// point of small order.
Result<Secret<32>> shared_coordinate(const Secret<32>& secret, const PublicKey& peer);

/// HKDF-SHA256 (salt: context, input: X25519(secret, peer), info). The raw coordinate is never a
/// key. Error: `peer` is a point of small order.
Result<Secret<32>> agree(const Secret<32>& secret, const PublicKey& peer, const Digest& context,
                         std::span<const std::byte> info);
/// HKDF-SHA256 of a seed, likewise.
Secret<32> derive(const Secret<32>& seed, const Digest& context, std::span<const std::byte> info);

/// AES-256-GCM with a key that is used once (nonce zero): ciphertext and its 16-byte tag.
Result<std::vector<std::byte>> seal(const Secret<32>& key, std::span<const std::byte> plaintext,
                                    std::span<const std::byte> associated);
/// Error: not what was sealed with this key and these associated bytes.
Result<std::vector<std::byte>> open(const Secret<32>& key, std::span<const std::byte> ciphertext,
                                    std::span<const std::byte> associated);

}  // namespace covey::privacy
