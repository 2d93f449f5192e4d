#include "secagg/keys.hpp"

// HKDF through EVP costs six times the hashing itself (2.2 us instead of 0.36), so HMAC is built on
// the plain SHA-256 of OpenSSL, which 3.0 marks as deprecated.
#define OPENSSL_API_COMPAT 0x10100000L

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/sha.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <cstring>
#include <memory>

namespace covey::privacy {
namespace {

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Key = std::unique_ptr<EVP_PKEY, Free>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Free>;
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, Free>;

constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kHashBytes = 32;
constexpr std::size_t kHashBlockBytes = 64;

unsigned char* raw(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}
const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
std::span<std::byte> bytes_of(SHA256_CTX& state) {
  return std::as_writable_bytes(std::span(&state, 1));
}

/// HMAC-SHA256 (RFC 2104) under one key, for any number of messages. Wiped when it goes.
class Hmac {
 public:
  explicit Hmac(std::span<const std::byte> key) {
    Secret<kHashBlockBytes> block;
    if (key.size() > kHashBlockBytes) {
      SHA256(raw(key), key.size(), block.data());
    } else if (!key.empty()) {
      std::memcpy(block.data(), key.data(), key.size());
    }
    start(inner_, block, 0x36);
    start(outer_, block, 0x36 ^ 0x5c);  // takes the inner pad off again
    current_ = inner_;
  }
  ~Hmac() {
    wipe(bytes_of(inner_));
    wipe(bytes_of(outer_));
    wipe(bytes_of(current_));
  }
  Hmac(const Hmac&) = delete;
  Hmac& operator=(const Hmac&) = delete;

  void update(std::span<const std::byte> bytes) {
    SHA256_Update(&current_, bytes.data(), bytes.size());
  }
  void finish(Secret<kHashBytes>& out) {
    SHA256_Final(out.data(), &current_);
    current_ = outer_;
    SHA256_Update(&current_, out.data(), kHashBytes);
    SHA256_Final(out.data(), &current_);
    current_ = inner_;
  }

 private:
  static void start(SHA256_CTX& state, Secret<kHashBlockBytes>& block, unsigned char pad) {
    for (std::size_t i = 0; i < kHashBlockBytes; ++i) block.data()[i] ^= pad;
    SHA256_Init(&state);
    SHA256_Update(&state, block.data(), kHashBlockBytes);
  }

  SHA256_CTX inner_, outer_, current_;
};

/// An X25519 key from both halves. Given only the secret, OpenSSL would compute the public one,
/// which costs as much as an agreement.
Key x25519_key(const unsigned char* secret, const unsigned char* public_key) {
  thread_local const KeyContext context = [] {
    KeyContext made(EVP_PKEY_CTX_new_from_name(nullptr, "X25519", nullptr));
    COVEY_ASSERT(made != nullptr && EVP_PKEY_fromdata_init(made.get()) == 1);
    return made;
  }();
  OSSL_PARAM parts[3];
  std::size_t count = 0;
  // The interface takes pointers to what it only reads.
  parts[count++] = OSSL_PARAM_construct_octet_string(
      OSSL_PKEY_PARAM_PUB_KEY, const_cast<unsigned char*>(public_key), kHashBytes);
  if (secret != nullptr) {
    parts[count++] = OSSL_PARAM_construct_octet_string(
        OSSL_PKEY_PARAM_PRIV_KEY, const_cast<unsigned char*>(secret), kHashBytes);
  }
  parts[count] = OSSL_PARAM_construct_end();
  EVP_PKEY* key = nullptr;
  const int selection = secret != nullptr ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
  COVEY_ASSERT(EVP_PKEY_fromdata(context.get(), &key, selection, parts) == 1);
  return Key(key);
}

/// This thread's AES-256-GCM context: making one costs four times as much as giving it another key.
EVP_CIPHER_CTX* gcm() {
  thread_local const CipherContext context = [] {
    CipherContext made(EVP_CIPHER_CTX_new());
    COVEY_ASSERT(made != nullptr && EVP_CipherInit_ex(made.get(), EVP_aes_256_gcm(), nullptr,
                                                      nullptr, nullptr, 1) == 1);
    return made;
  }();
  return context.get();
}

/// Puts a key that is no secret in the place of the last one.
void forget_gcm_key() {
  static constexpr unsigned char kNoKey[32] = {};
  static constexpr unsigned char kNonce[12] = {};
  COVEY_ASSERT(EVP_CipherInit_ex(gcm(), nullptr, nullptr, kNoKey, kNonce, 1) == 1);
}

/// One pass of AES-256-GCM up to the tag.
bool run_gcm(bool encrypt, const Secret<32>& key, std::span<const std::byte> input,
             std::span<const std::byte> associated, unsigned char* output) {
  static constexpr unsigned char kNonce[12] = {};  // each key seals one message
  int written = 0;
  return EVP_CipherInit_ex(gcm(), nullptr, nullptr, key.data(), kNonce, encrypt ? 1 : 0) == 1 &&
         (associated.empty() || EVP_CipherUpdate(gcm(), nullptr, &written, raw(associated),
                                                 static_cast<int>(associated.size())) == 1) &&
         (input.empty() || EVP_CipherUpdate(gcm(), output, &written, raw(input),
                                            static_cast<int>(input.size())) == 1);
}

// Lengths are int in OpenSSL; nothing sealed here comes near.
constexpr std::size_t kMostSealed = std::size_t{1} << 24;

}  // namespace

void hkdf_sha256(std::span<const std::byte> salt, std::span<const std::byte> input,
                 std::span<const std::byte> info, std::span<std::byte> output) {
  COVEY_ASSERT(output.size() <= 255 * kHashBytes);
  Secret<kHashBytes> block;
  {
    Hmac extract(salt);
    extract.update(input);
    extract.finish(block);
  }
  Hmac expand(block.span());
  for (std::size_t done = 0, counter = 1; done < output.size(); ++counter) {
    if (done > 0) expand.update(block.span());
    expand.update(info);
    const std::byte last{static_cast<unsigned char>(counter)};
    expand.update(std::span(&last, 1));
    expand.finish(block);
    const std::size_t part = std::min(kHashBytes, output.size() - done);
    std::memcpy(output.data() + done, block.data(), part);
    done += part;
  }
}

Result<PublicKey> public_key_of(const Secret<32>& secret) {
  const Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, secret.data(), kHashBytes));
  PublicKey public_key{};
  std::size_t length = public_key.size();
  if (key == nullptr || EVP_PKEY_get_raw_public_key(key.get(), public_key.data(), &length) != 1) {
    return failed("OpenSSL could not compute an X25519 public key");
  }
  return public_key;
}

Result<KeyPair> KeyPair::make(SecretSource& secrets) {
  KeyPair pair;
  COVEY_TRY(secrets.fill(pair.secret.span()));
  COVEY_ASSIGN(pair.public_key, public_key_of(pair.secret));
  return pair;
}

Result<Secret<32>> shared_coordinate(const Secret<32>& secret, const PublicKey& peer) {
  // An agreement reads only the secret half of the own key, so the public one may be anything.
  static constexpr PublicKey kUnread{};
  const Key own = x25519_key(secret.data(), kUnread.data());
  const Key other = x25519_key(nullptr, peer.data());
  const KeyContext context(EVP_PKEY_CTX_new(own.get(), nullptr));
  if (context == nullptr || EVP_PKEY_derive_init(context.get()) != 1 ||
      EVP_PKEY_derive_set_peer_ex(context.get(), other.get(), 0) != 1) {
    return failed("OpenSSL could not begin an X25519 key agreement");
  }
  Secret<32> coordinate;
  std::size_t length = kHashBytes;
  // OpenSSL refuses the all-zero outcome itself (RFC 7748, section 6.1); checked here too, because
  // a key that everybody knows must not depend on a library's version.
  const bool derived = EVP_PKEY_derive(context.get(), coordinate.data(), &length) == 1;
  if (!derived || coordinate == Secret<32>()) {
    return malformed("the peer's public key is a point of small order, which makes no secret");
  }
  return coordinate;
}

Result<Secret<32>> agree(const Secret<32>& secret, const PublicKey& peer, const Digest& context,
                         std::span<const std::byte> info) {
  COVEY_ASSIGN(const Secret<32> coordinate, shared_coordinate(secret, peer));
  return derive(coordinate, context, info);
}

Secret<32> derive(const Secret<32>& seed, const Digest& context, std::span<const std::byte> info) {
  Secret<32> key;
  hkdf_sha256(std::as_bytes(std::span(context.bytes)), seed.span(), info, key.span());
  return key;
}

Result<std::vector<std::byte>> seal(const Secret<32>& key, std::span<const std::byte> plaintext,
                                    std::span<const std::byte> associated) {
  COVEY_ASSERT(plaintext.size() <= kMostSealed && associated.size() <= kMostSealed);
  std::vector<std::byte> sealed(plaintext.size() + kTagBytes);
  unsigned char none = 0;
  int written = 0;
  const bool ok = run_gcm(true, key, plaintext, associated, raw(std::span(sealed))) &&
                  EVP_CipherFinal_ex(gcm(), &none, &written) == 1 &&
                  EVP_CIPHER_CTX_ctrl(gcm(), EVP_CTRL_AEAD_GET_TAG, kTagBytes,
                                      sealed.data() + plaintext.size()) == 1;
  forget_gcm_key();
  if (!ok) return failed("OpenSSL could not encrypt with AES-256-GCM");
  return sealed;
}

Result<std::vector<std::byte>> open(const Secret<32>& key, std::span<const std::byte> ciphertext,
                                    std::span<const std::byte> associated) {
  if (ciphertext.size() < kTagBytes || ciphertext.size() > kMostSealed) {
    return malformed("an encrypted message is too short or too long to be one");
  }
  COVEY_ASSERT(associated.size() <= kMostSealed);
  std::vector<std::byte> opened(ciphertext.size() - kTagBytes);
  unsigned char tag[kTagBytes];
  std::memcpy(tag, ciphertext.data() + opened.size(), kTagBytes);
  unsigned char none = 0;
  int written = 0;
  const bool ok =
      run_gcm(false, key, ciphertext.first(opened.size()), associated, raw(std::span(opened))) &&
      EVP_CIPHER_CTX_ctrl(gcm(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, tag) == 1 &&
      EVP_CipherFinal_ex(gcm(), &none, &written) == 1;
  forget_gcm_key();
  if (!ok) {
    wipe(opened);
    return malformed("an encrypted message was not made with this key for this purpose");
  }
  return opened;
}

}  // namespace covey::privacy
