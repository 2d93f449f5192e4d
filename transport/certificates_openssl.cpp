#include "certificates_openssl.hpp"

#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>

namespace covey::transport::openssl {
namespace {

/// Far above any certificate or list of a run with thousands of revocations; OpenSSL counts in int.
constexpr std::size_t kMaxPemBytes = 64u << 20;

int no_passphrase(char*, int, int, void*) { return 0; }

/// `read(bio)` on the text. PEM objects come after arbitrary text, so a file with a preamble is
/// fine.
template <typename Owned, typename Read>
Result<Owned> parse_pem(const std::string& pem, const char* what, Read&& read) {
  if (pem.size() > kMaxPemBytes) {
    return malformed(fmt::format("{} bytes are too many for a {}", pem.size(), what));
  }
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  if (!bio) return failure("reading PEM text");
  Owned object(read(bio.get()));
  if (!object) {
    ERR_clear_error();
    return malformed(fmt::format("not a {} in PEM form", what));
  }
  return object;
}

/// What `write(bio)` writes. The memory is OpenSSL's secure kind, which is wiped when freed,
/// because it may be a key.
template <typename Write>
Result<std::string> format_pem(const char* doing, Write&& write) {
  const Bio bio(BIO_new(BIO_s_secmem()));
  if (!bio || write(bio.get()) != 1) return failure(doing);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<std::size_t>(size));
}

}  // namespace

Error failure(const std::string& doing) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return failed(doing + ": OpenSSL failed without a reason");
  char reason[256];
  ERR_error_string_n(code, reason, sizeof reason);
  return failed(fmt::format("{}: {}", doing, reason));
}

Result<Key> generate_key() {
  Key key(EVP_EC_gen("P-256"));
  if (!key) return failure("making a P-256 key");
  return key;
}

Result<Key> parse_key(const std::string& pem) {
  return parse_pem<Key>(pem, "private key", [](BIO* bio) {
    return PEM_read_bio_PrivateKey(bio, nullptr, no_passphrase, nullptr);
  });
}

Result<Certificate> parse_certificate(const std::string& pem) {
  return parse_pem<Certificate>(pem, "certificate", [](BIO* bio) {
    return PEM_read_bio_X509(bio, nullptr, no_passphrase, nullptr);
  });
}

Result<Request> parse_request(const std::string& pem) {
  return parse_pem<Request>(pem, "certificate request", [](BIO* bio) {
    return PEM_read_bio_X509_REQ(bio, nullptr, no_passphrase, nullptr);
  });
}

Result<RevocationList> parse_revocation_list(const std::string& pem) {
  return parse_pem<RevocationList>(pem, "certificate revocation list", [](BIO* bio) {
    return PEM_read_bio_X509_CRL(bio, nullptr, no_passphrase, nullptr);
  });
}

Result<std::string> to_pem(EVP_PKEY* private_key) {
  return format_pem("writing a private key", [&](BIO* bio) {
    return PEM_write_bio_PKCS8PrivateKey(bio, private_key, nullptr, nullptr, 0, nullptr, nullptr);
  });
}

Result<std::string> to_pem(X509* certificate) {
  return format_pem("writing a certificate",
                    [&](BIO* bio) { return PEM_write_bio_X509(bio, certificate); });
}

Result<std::string> to_pem(X509_REQ* request) {
  return format_pem("writing a certificate request",
                    [&](BIO* bio) { return PEM_write_bio_X509_REQ(bio, request); });
}

Result<std::string> to_pem(X509_CRL* list) {
  return format_pem("writing a revocation list",
                    [&](BIO* bio) { return PEM_write_bio_X509_CRL(bio, list); });
}

Result<Signer> load_signer(const KeyAndCertificate& authority) {
  Signer signer;
  COVEY_ASSIGN(signer.certificate, parse_certificate(authority.certificate_pem));
  COVEY_ASSIGN(signer.key, parse_key(authority.key_pem));
  // 1: an X.509v3 certificate with basicConstraints CA.
  if (X509_check_ca(signer.certificate.get()) != 1) {
    return invalid_argument("the authority's certificate is not one of a certificate authority");
  }
  if (X509_check_private_key(signer.certificate.get(), signer.key.get()) != 1) {
    ERR_clear_error();
    return invalid_argument("the authority's key does not belong to its certificate");
  }
  return signer;
}

Result<void> set_common_name(X509_NAME* name, const std::string& common_name) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (common_name.empty() || std::ranges::any_of(common_name, control)) {
    return invalid_argument(
        "a certificate's common name must have 1 to 64 characters, none of them control "
        "characters");
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(common_name.data());
  if (X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8, bytes,
                                 static_cast<int>(common_name.size()), -1, 0) != 1) {
    ERR_clear_error();
    return invalid_argument(
        fmt::format("\"{}\" is not 1 to 64 characters of UTF-8, as a common name must be",
                    common_name.substr(0, 80)));
  }
  return {};
}

}  // namespace covey::transport::openssl
