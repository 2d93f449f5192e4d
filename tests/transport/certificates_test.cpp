#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <covey/transport/certificates.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <set>

using namespace covey;
using namespace covey::transport;
using Kind = PeerIdentity::Kind;

namespace {

template <auto Free>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using Crl = std::unique_ptr<X509_CRL, FreeWith<X509_CRL_free>>;
using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, FreeWith<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, FreeWith<X509_STORE_CTX_free>>;
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free_all>>;

Bio bio_of(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}
Certificate certificate_of(const std::string& pem) {
  return Certificate(PEM_read_bio_X509(bio_of(pem).get(), nullptr, nullptr, nullptr));
}
Crl crl_of(const std::string& pem) {
  return Crl(PEM_read_bio_X509_CRL(bio_of(pem).get(), nullptr, nullptr, nullptr));
}

/// One authority for all tests: making keys is the slow part.
const KeyAndCertificate& authority() {
  static const KeyAndCertificate made = make_authority("test run", 3650).value();
  return made;
}

Subject device(std::uint64_t number) {
  return {.kind = Kind::kDevice, .common_name = "device", .client = ClientId{number}};
}
Subject server() {
  return {.kind = Kind::kServer,
          .common_name = "server",
          .host_names = {"fl.example.org", "127.0.0.1", "::1"}};
}

/// OpenSSL's verdict (X509_V_OK or the error) on a leaf for a purpose, optionally against a CRL.
int verify(const std::string& ca_pem, const std::string& leaf_pem, int purpose,
           const std::string& crl_pem = "") {
  const Store store(X509_STORE_new());
  const auto ca = certificate_of(ca_pem);
  const auto leaf = certificate_of(leaf_pem);
  X509_STORE_add_cert(store.get(), ca.get());
  if (!crl_pem.empty()) {
    X509_STORE_add_crl(store.get(), crl_of(crl_pem).get());
    X509_STORE_set_flags(store.get(), X509_V_FLAG_CRL_CHECK);
  }
  // Strict: also checks that extensions are as RFC 5280 has them.
  X509_STORE_set_flags(store.get(), X509_V_FLAG_X509_STRICT);
  X509_STORE_set_purpose(store.get(), purpose);
  const StoreContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), nullptr);
  X509_verify_cert(context.get());
  return X509_STORE_CTX_get_error(context.get());
}

/// A self-signed certificate with these URIs as alternative names ("" for none at all), outside
/// what the library would issue.
std::string certificate_with_uris(const std::vector<std::string>& uris) {
  const Key key(EVP_EC_gen("P-256"));
  const Certificate certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  X509_set_pubkey(certificate.get(), key.get());
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  GENERAL_NAMES* names = GENERAL_NAMES_new();
  for (const auto& uri : uris) {
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, uri.data(), static_cast<int>(uri.size()));
    GENERAL_NAME* name = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(name, GEN_URI, text);
    sk_GENERAL_NAME_push(names, name);
  }
  if (!uris.empty()) {
    X509_add1_ext_i2d(certificate.get(), NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT);
  }
  GENERAL_NAMES_free(names);
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<std::size_t>(size));
}

}  // namespace

TEST_CASE("certificates say who their holder is") {
  const auto of = [](const Subject& subject) {
    return identity_of(issue(authority(), subject)->certificate_pem).value();
  };
  const auto seven = of({.kind = Kind::kDevice, .common_name = "Gerät 7", .client = ClientId{7}});
  CHECK(seven.kind == Kind::kDevice);
  CHECK(seven.client == ClientId{7});
  CHECK(seven.common_name == "Gerät 7");
  constexpr auto kLast = std::numeric_limits<std::uint64_t>::max();
  CHECK(of(device(kLast)).client == ClientId{kLast});
  CHECK(of(device(0)).client == ClientId{0});
  CHECK(of(server()).kind == Kind::kServer);
  CHECK(of({.kind = Kind::kOperator, .common_name = "ops"}).kind == Kind::kOperator);
}

TEST_CASE("an identity is read only from exactly one covey URI of a known form") {
  const auto refused = [](const std::vector<std::string>& uris) {
    return !identity_of(certificate_with_uris(uris)).ok();
  };
  CHECK(identity_of(certificate_with_uris({"covey:client:12"}))->client == ClientId{12});
  CHECK(identity_of(certificate_with_uris({"https://x", "covey:client:12"}))->client ==
        ClientId{12});
  CHECK(refused({}));
  CHECK(refused({"https://example.org"}));
  CHECK(refused({"covey:client:1", "covey:client:1"}));
  CHECK(refused({"covey:client:1", "covey:operator"}));
  for (const char* uri :
       {"covey:", "covey:client", "covey:client:", "covey:client:01", "covey:client:00",
        "covey:client:+1", "covey:client:-1", "covey:client: 1", "covey:client:1 ",
        "covey:client:0x1", "covey:client:1.0", "covey:client:18446744073709551616",
        "covey:operator:1", "covey:servers", "covey:Client:1"}) {
    CAPTURE(uri);
    CHECK(refused({uri}));
  }
  CHECK(refused({std::string("covey:client:1\0", 15)}));
  CHECK(refused({std::string("covey:operator\0x", 16)}));
}

TEST_CASE("text that is no certificate is refused, and asks for no passphrase") {
  for (const std::string text : {"", "hello", "-----BEGIN CERTIFICATE-----\n"}) {
    CHECK(identity_of(text).error().code == ErrorCode::kMalformed);
  }
  CHECK_FALSE(identity_of(authority().key_pem).ok());
  CHECK_FALSE(identity_of(authority().certificate_pem).ok());
}

TEST_CASE("issued certificates verify against their authority for their role alone") {
  const auto& ca = authority().certificate_pem;
  const auto device_pem = issue(authority(), device(1))->certificate_pem;
  CHECK(verify(ca, device_pem, X509_PURPOSE_SSL_CLIENT) == X509_V_OK);
  CHECK(verify(ca, device_pem, X509_PURPOSE_SSL_SERVER) == X509_V_ERR_INVALID_PURPOSE);
  const auto server_pem = issue(authority(), server())->certificate_pem;
  CHECK(verify(ca, server_pem, X509_PURPOSE_SSL_SERVER) == X509_V_OK);
  CHECK(verify(ca, server_pem, X509_PURPOSE_SSL_CLIENT) == X509_V_ERR_INVALID_PURPOSE);
  const auto operator_pem =
      issue(authority(), {.kind = Kind::kOperator, .common_name = "ops"})->certificate_pem;
  CHECK(verify(ca, operator_pem, X509_PURPOSE_SSL_CLIENT) == X509_V_OK);
}

TEST_CASE("a certificate of another authority of the same name does not verify") {
  const auto other = make_authority("test run", 3650).value();
  const auto pem = issue(other, device(1))->certificate_pem;
  CHECK(verify(authority().certificate_pem, pem, X509_PURPOSE_SSL_CLIENT) != X509_V_OK);
}

TEST_CASE("a device cannot act as an authority") {
  const auto issued = issue(authority(), device(1)).value();
  const auto forged = issue(issued, device(2));
  REQUIRE_FALSE(forged.ok());
  CHECK(forged.error().message.find("not one of a certificate authority") != std::string::npos);
}

TEST_CASE("a negative validity makes an expired certificate") {
  auto subject = device(1);
  subject.valid_days = -1;
  const auto pem = issue(authority(), subject)->certificate_pem;
  CHECK(verify(authority().certificate_pem, pem, X509_PURPOSE_SSL_CLIENT) ==
        X509_V_ERR_CERT_HAS_EXPIRED);
  CHECK(describe(pem)->expired);
}

TEST_CASE("certificates are valid for peers whose clock is four minutes behind") {
  const auto certificate = certificate_of(issue(authority(), device(1))->certificate_pem);
  std::time_t behind = std::time(nullptr) - 4 * 60;
  CHECK(X509_cmp_time(X509_get0_notBefore(certificate.get()), &behind) < 0);
}

TEST_CASE("a server's certificate names its hosts and addresses") {
  const auto pem = issue(authority(), server())->certificate_pem;
  const auto certificate = certificate_of(pem);
  CHECK(X509_check_host(certificate.get(), "fl.example.org", 0, 0, nullptr) == 1);
  CHECK(X509_check_host(certificate.get(), "example.org", 0, 0, nullptr) == 0);
  CHECK(X509_check_ip_asc(certificate.get(), "127.0.0.1", 0) == 1);
  CHECK(X509_check_ip_asc(certificate.get(), "::1", 0) == 1);
  CHECK(X509_check_ip_asc(certificate.get(), "127.0.0.2", 0) == 0);
  CHECK(describe(pem)->host_names ==
        std::vector<std::string>{"fl.example.org", "127.0.0.1", "0:0:0:0:0:0:0:1"});
}

TEST_CASE("host names and common names that cannot be are refused") {
  for (const char* host : {"", "a b", "a..b", ".a", "-a", "a,DNS:b", "http://a", "1.2.3.4:80"}) {
    CAPTURE(host);
    auto subject = server();
    subject.host_names = {host};
    CHECK(issue(authority(), subject).error().code == ErrorCode::kInvalidArgument);
  }
  for (const std::string& name : {std::string(), std::string(65, 'x'), std::string("a\0b", 3),
                                  std::string("a\x1b[31m"), std::string("\xff")}) {
    CAPTURE(name);
    auto subject = device(1);
    subject.common_name = name;
    CHECK(issue(authority(), subject).error().code == ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("serial numbers are random") {
  std::set<std::string> serials;
  for (std::uint64_t i = 0; i < 8; ++i) {
    serials.insert(describe(issue(authority(), device(i))->certificate_pem)->serial);
  }
  CHECK(serials.size() == 8);
}

TEST_CASE("a key that is not the authority's cannot sign for it") {
  const auto other = make_authority("other", 10).value();
  CHECK_FALSE(issue({other.key_pem, authority().certificate_pem}, device(1)).ok());
}

TEST_CASE("a request is signed for the subject given, not for the one asked for") {
  const auto request = make_request("I am the operator").value();
  const auto pem = sign_request(authority(), request.request_pem, device(33)).value();
  CHECK(verify(authority().certificate_pem, pem, X509_PURPOSE_SSL_CLIENT) == X509_V_OK);
  CHECK(identity_of(pem)->client == ClientId{33});
  CHECK(identity_of(pem)->common_name == "device");
  // The certificate is for the key that stayed with the device.
  const Key key(PEM_read_bio_PrivateKey(bio_of(request.key_pem).get(), nullptr, nullptr, nullptr));
  CHECK(X509_check_private_key(certificate_of(pem).get(), key.get()) == 1);
}

TEST_CASE("a request changed anywhere in its content is never signed") {
  const auto request = make_request("device").value().request_pem;
  const std::size_t begin = request.find('\n') + 1;
  // Not the last group of four: bits there may be padding, which decodes to the same request.
  const std::size_t end = request.find("\n-----END") - 4;
  int refused = 0;
  for (std::size_t i = begin; i < end; i += 7) {
    if (request[i] == '\n') continue;
    auto tampered = request;
    tampered[i] = tampered[i] == 'A' ? 'B' : 'A';
    CAPTURE(i);
    CHECK_FALSE(sign_request(authority(), tampered, device(1)).ok());
    ++refused;
  }
  CHECK(refused > 30);
}

TEST_CASE("requests with keys of another kind are refused") {
  for (const char* curve : {"P-384", "secp256k1"}) {
    const Key key(EVP_EC_gen(curve));
    std::unique_ptr<X509_REQ, FreeWith<X509_REQ_free>> request(X509_REQ_new());
    X509_REQ_set_pubkey(request.get(), key.get());
    X509_REQ_sign(request.get(), key.get(), EVP_sha256());
    const Bio bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509_REQ(bio.get(), request.get());
    char* text = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &text);
    const auto signed_pem =
        sign_request(authority(), std::string(text, static_cast<std::size_t>(size)), device(1));
    REQUIRE_FALSE(signed_pem.ok());
    CHECK(signed_pem.error().message.find("P-256") != std::string::npos);
  }
}

TEST_CASE("a revoked certificate no longer verifies and others still do") {
  const auto& ca = authority().certificate_pem;
  const auto lost = issue(authority(), device(1))->certificate_pem;
  const auto kept = issue(authority(), device(2))->certificate_pem;
  const auto empty = revoke(authority(), "", {}).value();
  CHECK(verify(ca, lost, X509_PURPOSE_SSL_CLIENT, empty) == X509_V_OK);
  const auto crl = revoke(authority(), empty, {lost}).value();
  CHECK(verify(ca, lost, X509_PURPOSE_SSL_CLIENT, crl) == X509_V_ERR_CERT_REVOKED);
  CHECK(verify(ca, kept, X509_PURPOSE_SSL_CLIENT, crl) == X509_V_OK);
}

TEST_CASE("a revocation list keeps what it held, counts up and lists nothing twice") {
  const auto& ca = authority().certificate_pem;
  const auto first = issue(authority(), device(1))->certificate_pem;
  const auto second = issue(authority(), device(2))->certificate_pem;
  const auto one = revoke(authority(), "", {first}).value();
  const auto two = revoke(authority(), one, {second, first, second}).value();
  CHECK(verify(ca, first, X509_PURPOSE_SSL_CLIENT, two) == X509_V_ERR_CERT_REVOKED);
  CHECK(verify(ca, second, X509_PURPOSE_SSL_CLIENT, two) == X509_V_ERR_CERT_REVOKED);
  const auto list = crl_of(two);
  CHECK(sk_X509_REVOKED_num(X509_CRL_get_REVOKED(list.get())) == 2);
  const auto number = [](const std::string& pem) {
    std::unique_ptr<ASN1_INTEGER, FreeWith<ASN1_INTEGER_free>> value(static_cast<ASN1_INTEGER*>(
        X509_CRL_get_ext_d2i(crl_of(pem).get(), NID_crl_number, nullptr, nullptr)));
    return ASN1_INTEGER_get(value.get());
  };
  CHECK(number(one) == 1);
  CHECK(number(two) == 2);
}

TEST_CASE("only certificates and lists of the same authority can be revoked and extended") {
  const auto other = make_authority("other", 10).value();
  const auto foreign = issue(other, device(1))->certificate_pem;
  CHECK_FALSE(revoke(authority(), "", {foreign}).ok());
  CHECK_FALSE(revoke(authority(), "", {authority().certificate_pem}).ok());
  const auto foreign_list = revoke(other, "", {foreign}).value();
  const auto extended = revoke(authority(), foreign_list, {});
  REQUIRE_FALSE(extended.ok());
  CHECK(extended.error().message == "the revocation list was not signed by this authority");
}

TEST_CASE("the openssl program agrees with what is issued and revoked") {
  if (std::system("openssl version > /dev/null 2>&1") != 0) {
    WARN("no openssl program here: not compared with it");
    return;
  }
  std::string pattern = (std::filesystem::temp_directory_path() / "covey-pki-XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  const std::filesystem::path directory(pattern);
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(directory / name) << text;
  };
  const auto kept = issue(authority(), device(1)).value();
  const auto lost = issue(authority(), device(2))->certificate_pem;
  write("ca.pem", authority().certificate_pem);
  write("kept.pem", kept.certificate_pem);
  write("lost.pem", lost);
  write("crl.pem", revoke(authority(), "", {lost}).value());
  write("request.pem", make_request("device")->request_pem);
  const auto succeeds = [&](const std::string& arguments) {
    return std::system(
               ("cd '" + directory.string() + "' && openssl " + arguments + " > /dev/null 2>&1")
                   .c_str()) == 0;
  };
  const std::string verify_with_list =
      "verify -x509_strict -purpose sslclient -crl_check -CRLfile crl.pem -CAfile ca.pem ";
  CHECK(succeeds(verify_with_list + "kept.pem"));
  CHECK_FALSE(succeeds(verify_with_list + "lost.pem"));
  CHECK(succeeds("crl -in crl.pem -CAfile ca.pem -noout"));
  CHECK(succeeds("req -in request.pem -verify -noout"));
  std::filesystem::remove_all(directory);
}
