#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <catch2/catch.hpp>
#include <covey/privacy/identity.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace covey::privacy {
namespace {

std::vector<std::byte> text(std::string_view words) {
  const auto bytes = std::as_bytes(std::span(words));
  return {bytes.begin(), bytes.end()};
}

template <std::size_t N>
std::array<std::uint8_t, N> from_hex(const std::string& hex) {
  REQUIRE(hex.size() == 2 * N);
  std::array<std::uint8_t, N> bytes{};
  for (std::size_t i = 0; i < N; ++i) {
    bytes[i] = static_cast<std::uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

std::unique_ptr<SecretSource> source() { return seeded_secrets(4711, {}, {}); }

struct AuthorityFiles {
  std::string key_pem, certificate_pem;
};

std::string taken(BIO* bio) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  std::string pem(bytes, static_cast<std::size_t>(size));
  BIO_free(bio);
  return pem;
}

/// A certificate that signs itself, of an authority or not, and its key. Takes the key over.
AuthorityFiles files_of(EVP_PKEY* key, bool is_authority, bool hashes = true) {
  REQUIRE(key != nullptr);
  X509* certificate = X509_new();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints,
                                                  is_authority ? "CA:TRUE" : "CA:FALSE");
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  REQUIRE(X509_sign(certificate, key, hashes ? EVP_sha256() : nullptr) > 0);
  BIO* certificate_bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(certificate_bio, certificate);
  BIO* key_bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PKCS8PrivateKey(key_bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return {taken(key_bio), taken(certificate_bio)};
}

EVP_PKEY* p256_key() { return EVP_EC_gen("P-256"); }
EVP_PKEY* ed25519_key() { return EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"); }

TEST_CASE("a signature of RFC 8032 is accepted, and no changed one") {
  // Section 7.1, test 3.
  const auto key = from_hex<32>("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
  auto signature = from_hex<64>(
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984d"
      "c6594a7c15e9716ed28dc027beceea1ec40a");
  const std::vector<std::byte> message{std::byte{0xaf}, std::byte{0x82}};
  CHECK(check_signature(key, message, signature).ok());
  CHECK_FALSE(check_signature(key, text("other"), signature).ok());
  for (std::size_t bit = 0; bit < 512; ++bit) {
    auto changed = signature;
    changed[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
    CHECK_FALSE(check_signature(key, message, changed).ok());
  }
  auto other_key = key;
  other_key[5] ^= 1;
  const auto refused = check_signature(other_key, message, signature);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code == ErrorCode::kMalformed);
}

TEST_CASE("an identity signs as the key of its PEM does") {
  const auto secrets = source();
  const auto identity = Identity::make(*secrets);
  REQUIRE(identity.ok());
  const auto pem = identity->to_pem();
  REQUIRE(pem.ok());
  CHECK(pem->starts_with("-----BEGIN PRIVATE KEY-----"));
  const auto loaded = Identity::from_pem(*pem);
  REQUIRE(loaded.ok());
  CHECK(loaded->public_key() == identity->public_key());
  const auto message = text("survivors");
  CHECK(loaded->sign(message) == identity->sign(message));  // Ed25519 is deterministic
  CHECK(check_signature(identity->public_key(), message, loaded->sign(message)).ok());
  CHECK(check_signature(identity->public_key(), {}, identity->sign({})).ok());
}

TEST_CASE("a seeded source makes the same identity again, and then another") {
  const auto secrets = source();
  const auto first = Identity::make(*secrets);
  const auto second = Identity::make(*secrets);
  const auto again = Identity::make(*source());
  REQUIRE((first.ok() && second.ok() && again.ok()));
  CHECK(first->public_key() == again->public_key());
  CHECK(first->public_key() != second->public_key());
}

TEST_CASE("a PEM that is no Ed25519 key is refused with the reason") {
  const auto nothing = Identity::from_pem("");
  REQUIRE_FALSE(nothing.ok());
  CHECK(nothing.error().message == "not an unencrypted private key in PEM form");
  CHECK_FALSE(
      Identity::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").ok());
  const auto files = files_of(p256_key(), true);
  CHECK_FALSE(Identity::from_pem(files.certificate_pem).ok());
  const auto other = Identity::from_pem(files.key_pem);
  REQUIRE_FALSE(other.ok());
  CHECK(other.error().message == "the key of a device's identity must be of Ed25519");
}

TEST_CASE("an authority of either kind certifies, and its certificate checks that") {
  for (const auto& files : {files_of(p256_key(), true), files_of(ed25519_key(), true, false)}) {
    const auto authority = AuthorityKey::from_certificate_pem(files.certificate_pem);
    REQUIRE(authority.ok());
    const auto identity = Identity::make(*source());
    REQUIRE(identity.ok());
    const auto certificate = certify(files.key_pem, ClientId{17}, identity->public_key());
    REQUIRE(certificate.ok());
    CHECK(certificate->client == ClientId{17});
    CHECK(certificate->key == identity->public_key());
    CHECK(authority->check(*certificate).ok());
    CHECK(authority->check(*certificate).ok());  // as remembered

    const auto refused = [&](const IdentityCertificate& changed) {
      const auto checked = authority->check(changed);
      return !checked.ok() && checked.error().code == ErrorCode::kMalformed;
    };
    auto other_client = *certificate;
    other_client.client = ClientId{17 + (std::uint64_t{1} << 40)};
    CHECK(refused(other_client));
    auto other_key = *certificate;
    other_key.key[0] ^= 1;
    CHECK(refused(other_key));
    for (std::size_t byte = 0; byte < certificate->signature.size(); ++byte) {
      auto tampered = *certificate;
      tampered.signature[byte] ^= std::byte{0x10};
      CHECK(refused(tampered));
    }
    auto short_one = *certificate;
    short_one.signature.pop_back();
    CHECK(refused(short_one));
    auto empty = *certificate;
    empty.signature.clear();
    CHECK(refused(empty));
    auto long_one = *certificate;
    long_one.signature.resize(100000);
    CHECK(refused(long_one));
  }
}

TEST_CASE("another authority's certificate is refused, and says whose") {
  const auto secrets = source();
  const auto ours = IdentityAuthority::make(*secrets);
  const auto theirs = IdentityAuthority::make(*secrets);
  REQUIRE((ours.ok() && theirs.ok()));
  const auto credentials = theirs->issue(ClientId{23}, *secrets);
  REQUIRE(credentials.ok());
  CHECK(credentials->authority.check(credentials->certificate).ok());
  CHECK(credentials->identity.public_key() == credentials->certificate.key);
  CHECK(credentials->certificate.client == ClientId{23});
  const auto checked = ours->key().check(credentials->certificate);
  REQUIRE_FALSE(checked.ok());
  CHECK(checked.error().message ==
        "the identity of client 23 is not certified by the run's authority");
}

TEST_CASE("a certificate found good by one thread does not make another one good") {
  const auto secrets = source();
  const auto authority = IdentityAuthority::make(*secrets);
  REQUIRE(authority.ok());
  const auto credentials = authority->issue(ClientId{1}, *secrets);
  REQUIRE(credentials.ok());
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned i = 0; i < 20; ++i) {
        wrong[thread] += !authority->key().check(credentials->certificate).ok();
        auto forged = credentials->certificate;
        forged.client = ClientId{i * 4 + thread + 2};
        wrong[thread] += authority->key().check(forged).ok();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("what is no authority's certificate or key is refused with the reason") {
  const auto nothing = AuthorityKey::from_certificate_pem("");
  REQUIRE_FALSE(nothing.ok());
  CHECK(nothing.error().message == "not a certificate in PEM form");
  const auto device = files_of(p256_key(), false);
  const auto no_authority = AuthorityKey::from_certificate_pem(device.certificate_pem);
  REQUIRE_FALSE(no_authority.ok());
  CHECK(no_authority.error().message == "not the certificate of an authority");
  CHECK_FALSE(AuthorityKey::from_certificate_pem(device.key_pem).ok());
  const auto other_curve = files_of(EVP_EC_gen("P-384"), true);
  const auto wrong_kind = AuthorityKey::from_certificate_pem(other_curve.certificate_pem);
  REQUIRE_FALSE(wrong_kind.ok());
  CHECK(wrong_kind.error().message == "the authority's key is neither ECDSA P-256 nor Ed25519");
  CHECK_FALSE(certify(other_curve.key_pem, ClientId{1}, PublicKey{}).ok());
  const auto no_key = certify(device.certificate_pem, ClientId{1}, PublicKey{});
  REQUIRE_FALSE(no_key.ok());
  CHECK(no_key.error().message ==
        "the authority's key: not an unencrypted private key in PEM form");
}

TEST_CASE("a certificate survives its text") {
  IdentityCertificate certificate;
  certificate.client = ClientId{0xfedcba9876543210};
  for (std::size_t i = 0; i < 32; ++i) certificate.key[i] = static_cast<std::uint8_t>(8 * i);
  certificate.signature = text("seventy-two bytes or fewer");
  const std::string written = to_text(certificate);
  const auto read = identity_certificate_from_text(written);
  REQUIRE(read.ok());
  CHECK(*read == certificate);
  std::string with_returns;
  for (const char c : written) with_returns += c == '\n' ? std::string("\r\n") : std::string(1, c);
  const auto from_windows = identity_certificate_from_text(with_returns);
  REQUIRE(from_windows.ok());
  CHECK(*from_windows == certificate);
}

TEST_CASE("a text that is no certificate is refused with the reason") {
  IdentityCertificate certificate;
  certificate.client = ClientId{12};
  certificate.signature = text("signature");
  const std::string good = to_text(certificate);
  const auto reason = [&](const std::string& from, const std::string& to) {
    std::string changed = good;
    const std::size_t place = changed.find(from);
    REQUIRE(place != std::string::npos);
    changed.replace(place, from.size(), to);
    const auto read = identity_certificate_from_text(changed);
    REQUIRE_FALSE(read.ok());
    return read.error().message;
  };
  const std::string what = "a device's identity certificate: ";
  CHECK(reason("covey", "cove") ==
        "not a device's identity certificate: its first line must be \"covey identity certificate "
        "v1\"");
  CHECK(reason("client 12", "client twelve") == what + "\"client\" is not a whole number");
  CHECK(reason("client 12", "client 99999999999999999999") ==
        what + "\"client\" is not a whole number");
  CHECK(reason("client 12\n", "") == what + "the line \"client ...\" is missing");
  CHECK(reason("key 00", "key ") == what + "\"key\" has 31 bytes instead of 32");
  CHECK(reason("key 00", "key 0000") == what + "\"key\" has 33 bytes instead of 32");
  CHECK(reason("key 00", "key 0") == what + "\"key\" is not in hexadecimal");
  CHECK(reason("key 00", "key 0x") == what + "\"key\" is not in hexadecimal");
  CHECK(reason("signature ", "signature") == what + "the line \"signature ...\" is missing");
  CHECK(reason("signature ", "signature " + std::string(1000, '0')) ==
        what + "\"signature\" is not in hexadecimal");
  CHECK_FALSE(identity_certificate_from_text(good + "more\n").ok());
  for (std::size_t size = 0; size + 1 < good.size(); ++size) {
    const auto read = identity_certificate_from_text(good.substr(0, size));
    // Cut within the signature by a whole byte it is a text like any other; its check fails.
    CHECK((!read.ok() || !(*read == certificate)));
  }
}

TEST_CASE("a request names a key that signed it, wherever in a text it stands") {
  const auto identity = Identity::make(*source());
  REQUIRE(identity.ok());
  const std::string request = to_request_text(*identity);
  const std::string around =
      "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
  const auto found = identity_request_from_text(around + request);
  REQUIRE(found.ok());
  CHECK(*found == identity->public_key());

  const auto none = identity_request_from_text(around);
  REQUIRE(none.ok());
  CHECK_FALSE(none->has_value());

  std::string other = request;
  const std::size_t key = other.find("key ") + 4;
  other[key] = other[key] == '0' ? '1' : '0';
  const auto forged = identity_request_from_text(other);
  REQUIRE_FALSE(forged.ok());
  CHECK(forged.error().message == "the request for an identity is not signed by its own key");
  CHECK_FALSE(identity_request_from_text(request.substr(0, request.size() - 3)).ok());
}

}  // namespace
}  // namespace covey::privacy
