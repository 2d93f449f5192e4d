#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <covey/assert.hpp>
#include <covey/privacy/identity.hpp>
#include <mutex>
#include <string_view>
#include <unordered_set>

namespace covey::privacy {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Free<EVP_MD_CTX_free>>;

constexpr std::string_view kCertificateLabel = "covey identity v1";

// An ECDSA P-256 signature is at most 72 bytes of DER, one of Ed25519 64.
constexpr std::size_t kMostSignature = 72;

// Of certificates found good, so that a day of rounds with ever new devices stays within 2 MB.
constexpr std::size_t kMostRemembered = 1 << 15;

/// Instead of OpenSSL's default, which asks the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

bool is_authority_kind(const EVP_PKEY* key) {
  std::array<char, 32> group{};
  std::size_t length = 0;
  return EVP_PKEY_is_a(key, "ED25519") == 1 ||
         (EVP_PKEY_is_a(key, "EC") == 1 &&
          EVP_PKEY_get_group_name(key, group.data(), group.size(), &length) == 1 &&
          std::string_view(group.data()) == "prime256v1");
}

const EVP_MD* hash_of(const EVP_PKEY* key) {
  return EVP_PKEY_is_a(key, "ED25519") == 1 ? nullptr : EVP_sha256();  // Ed25519 has its own
}

Result<Key> parse_key(const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Key key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  ERR_clear_error();
  if (!key) return malformed("not an unencrypted private key in PEM form");
  return key;
}

Result<std::vector<std::byte>> sign(EVP_PKEY* key, std::span<const std::byte> message) {
  const DigestContext context(EVP_MD_CTX_new());
  std::vector<std::byte> signature(kMostSignature);
  std::size_t length = signature.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, hash_of(key), nullptr, key) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &length,
                     reinterpret_cast<const unsigned char*>(message.data()), message.size()) != 1) {
    ERR_clear_error();
    return failed("OpenSSL could not sign");
  }
  signature.resize(length);
  return signature;
}

bool verifies(EVP_PKEY* key, std::span<const std::byte> message,
              std::span<const std::byte> signature) {
  const DigestContext context(EVP_MD_CTX_new());
  const bool ok =
      context && EVP_DigestVerifyInit(context.get(), nullptr, hash_of(key), nullptr, key) == 1 &&
      EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                       signature.size(), reinterpret_cast<const unsigned char*>(message.data()),
                       message.size()) == 1;
  ERR_clear_error();
  return ok;
}

/// What the authority signs: label, client (little-endian), key; of one length, so never ambiguous.
std::vector<std::byte> certified_message(ClientId client, const PublicKey& key) {
  const auto label = std::as_bytes(std::span(kCertificateLabel));
  std::vector<std::byte> message(label.begin(), label.end());
  for (unsigned shift = 0; shift < 64; shift += 8) {
    message.push_back(static_cast<std::byte>(value_of(client) >> shift & 0xff));
  }
  const auto bytes = std::as_bytes(std::span(key));
  message.insert(message.end(), bytes.begin(), bytes.end());
  return message;
}

Result<IdentityCertificate> certify_with(EVP_PKEY* authority, ClientId client,
                                         const PublicKey& key) {
  COVEY_ASSIGN(std::vector<std::byte> signature, sign(authority, certified_message(client, key)));
  return IdentityCertificate{client, key, std::move(signature)};
}

PublicKey raw_public_key(const EVP_PKEY* key) {
  PublicKey bytes{};
  std::size_t length = bytes.size();
  COVEY_ASSERT(EVP_PKEY_get_raw_public_key(key, bytes.data(), &length) == 1 &&
               length == bytes.size());
  return bytes;
}

Result<Key> make_key(SecretSource& secrets) {
  Secret<32> seed;
  COVEY_TRY(secrets.fill(seed.span()));
  Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), 32));
  if (!key) return failed("OpenSSL could not make an Ed25519 key");
  return key;
}

}  // namespace

struct AuthorityKey::State {
  Key key;
  mutable std::mutex mutex;
  mutable std::unordered_set<Digest, DigestHash> good;  ///< hashes of message and signature

  bool remembers(const Digest& certificate) const {
    const std::lock_guard lock(mutex);
    return good.contains(certificate);
  }
  void remember(const Digest& certificate) const {
    const std::lock_guard lock(mutex);
    if (good.size() >= kMostRemembered) good.clear();
    good.insert(certificate);
  }
};

Result<AuthorityKey> AuthorityKey::from_certificate_pem(const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const Certificate certificate(bio ? PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr)
                                    : nullptr);
  Key key(certificate ? X509_get_pubkey(certificate.get()) : nullptr);
  ERR_clear_error();
  if (!key) return malformed("not a certificate in PEM form");
  if (X509_check_ca(certificate.get()) == 0) {
    return malformed("not the certificate of an authority");
  }
  if (!is_authority_kind(key.get())) {
    return malformed("the authority's key is neither ECDSA P-256 nor Ed25519");
  }
  auto state = std::make_shared<State>();
  state->key = std::move(key);
  return AuthorityKey(std::move(state));
}

Result<void> AuthorityKey::check(const IdentityCertificate& certificate) const {
  const auto message = certified_message(certificate.client, certificate.key);
  Sha256 hash;
  hash.update(message);
  hash.update(certificate.signature);
  const Digest digest = hash.finish();
  if (state_->remembers(digest)) return {};
  if (certificate.signature.size() > kMostSignature ||
      !verifies(state_->key.get(), message, certificate.signature)) {
    return malformed(
        fmt::format("the identity of client {} is not certified by the run's authority",
                    value_of(certificate.client)));
  }
  state_->remember(digest);
  return {};
}

struct Identity::State {
  Key key;
  PublicKey public_key{};
};

Result<Identity> Identity::make(SecretSource& secrets) {
  COVEY_ASSIGN(Key key, make_key(secrets));
  const PublicKey public_key = raw_public_key(key.get());
  return Identity(std::make_shared<const State>(State{std::move(key), public_key}));
}

Result<Identity> Identity::from_pem(const std::string& key_pem) {
  COVEY_ASSIGN(Key key, parse_key(key_pem));
  if (EVP_PKEY_is_a(key.get(), "ED25519") != 1) {
    return malformed("the key of a device's identity must be of Ed25519");
  }
  const PublicKey public_key = raw_public_key(key.get());
  return Identity(std::make_shared<const State>(State{std::move(key), public_key}));
}

Result<std::string> Identity::to_pem() const {
  const Bio bio(BIO_new(BIO_s_secmem()));  // wiped when freed
  if (!bio || PEM_write_bio_PKCS8PrivateKey(bio.get(), state_->key.get(), nullptr, nullptr, 0,
                                            nullptr, nullptr) != 1) {
    ERR_clear_error();
    return failed("OpenSSL could not write a private key");
  }
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<std::size_t>(size));
}

PublicKey Identity::public_key() const { return state_->public_key; }

Signature Identity::sign(std::span<const std::byte> message) const {
  const auto bytes = privacy::sign(state_->key.get(), message);
  Signature signature{};
  COVEY_ASSERT(bytes.ok() && bytes->size() == signature.size());
  std::transform(bytes->begin(), bytes->end(), signature.begin(),
                 [](std::byte byte) { return std::to_integer<std::uint8_t>(byte); });
  return signature;
}

Result<void> check_signature(const PublicKey& key, std::span<const std::byte> message,
                             const Signature& signature) {
  const Key loaded(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()));
  if (!loaded || !verifies(loaded.get(), message, std::as_bytes(std::span(signature)))) {
    ERR_clear_error();
    return malformed("the signature was not made with this key over this message");
  }
  return {};
}

Result<IdentityCertificate> certify(const std::string& authority_key_pem, ClientId client,
                                    const PublicKey& key) {
  auto authority = parse_key(authority_key_pem);
  if (!authority.ok()) return with_context("the authority's key", authority.error());
  if (!is_authority_kind(authority->get())) {
    return malformed("the authority's key is neither ECDSA P-256 nor Ed25519");
  }
  return certify_with(authority->get(), client, key);
}

struct IdentityAuthority::State {
  Key private_key;
  AuthorityKey key;
};

Result<IdentityAuthority> IdentityAuthority::make(SecretSource& secrets) {
  COVEY_ASSIGN(Key private_key, make_key(secrets));
  const PublicKey raw = raw_public_key(private_key.get());
  auto verifier = std::make_shared<AuthorityKey::State>();
  verifier->key.reset(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw.data(), raw.size()));
  if (!verifier->key) return failed("OpenSSL could not make an Ed25519 key");
  return IdentityAuthority(std::make_shared<const State>(
      State{std::move(private_key), AuthorityKey(std::move(verifier))}));
}

Result<DeviceCredentials> IdentityAuthority::issue(ClientId client, SecretSource& secrets) const {
  COVEY_ASSIGN(Identity identity, Identity::make(secrets));
  COVEY_ASSIGN(IdentityCertificate certificate,
               certify_with(state_->private_key.get(), client, identity.public_key()));
  return DeviceCredentials{std::move(identity), std::move(certificate), state_->key};
}

const AuthorityKey& IdentityAuthority::key() const { return state_->key; }

}  // namespace covey::privacy
