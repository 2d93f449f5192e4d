#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/err.h>

#include <algorithm>
#include <covey/transport/certificates.hpp>

#include "certificates_openssl.hpp"

namespace covey::transport {
namespace {

using openssl::Certificate;
using openssl::failure;
using openssl::Key;

/// A hundred years: beyond it only typing errors.
constexpr int kMaxValidDays = 36500;

/// A positive serial number of 128 random bits: unguessable, and unique without a counter to keep.
Result<void> set_random_serial(X509* certificate) {
  const openssl::BigNumber number(BN_new());
  if (!number || BN_rand(number.get(), 128, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) != 1 ||
      BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) == nullptr) {
    return failure("drawing a serial number");
  }
  return {};
}

/// From five minutes ago until `valid_days` from now; for an expired one, from a day before its
/// end.
Result<void> set_validity(X509* certificate, int valid_days) {
  if (valid_days > kMaxValidDays || valid_days < -kMaxValidDays) {
    return invalid_argument(
        fmt::format("a validity of {} days is more than a hundred years", valid_days));
  }
  const long end = valid_days * openssl::kSecondsPerDay;
  const long begin = valid_days > 0 ? -openssl::kClockSkewSeconds : end - openssl::kSecondsPerDay;
  if (X509_gmtime_adj(X509_getm_notBefore(certificate), begin) == nullptr ||
      X509_gmtime_adj(X509_getm_notAfter(certificate), end) == nullptr) {
    return failure("setting a certificate's validity");
  }
  return {};
}

/// One extension in OpenSSL's configuration language; `value` is always a constant of ours.
Result<void> add_extension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  if (!added) return failure(fmt::format("adding the extension {}", OBJ_nid2sn(nid)));
  return {};
}

Result<void> add_name(GENERAL_NAMES* names, int type, const std::string& text) {
  ASN1_STRING* value = ASN1_IA5STRING_new();
  GENERAL_NAME* name = GENERAL_NAME_new();
  if (value == nullptr || name == nullptr ||
      ASN1_STRING_set(value, text.data(), static_cast<int>(text.size())) != 1 ||
      sk_GENERAL_NAME_push(names, name) <= 0) {
    ASN1_STRING_free(value);
    GENERAL_NAME_free(name);
    return failure("adding the name " + text);
  }
  GENERAL_NAME_set0_value(name, type, value);
  return {};
}

bool is_dns_name(const std::string& host) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.';
  };
  return !host.empty() && host.size() <= 253 && std::ranges::all_of(host, allowed) &&
         host.front() != '.' && host.front() != '-' && host.find("..") == std::string::npos;
}

Result<void> add_host_name(GENERAL_NAMES* names, const std::string& host) {
  if (ASN1_OCTET_STRING* address = a2i_IPADDRESS(host.c_str())) {
    GENERAL_NAME* name = GENERAL_NAME_new();
    if (name == nullptr || sk_GENERAL_NAME_push(names, name) <= 0) {
      ASN1_OCTET_STRING_free(address);
      GENERAL_NAME_free(name);
      return failure("adding the address " + host);
    }
    GENERAL_NAME_set0_value(name, GEN_IPADD, address);
    return {};
  }
  ERR_clear_error();
  if (!is_dns_name(host)) {
    return invalid_argument(fmt::format("\"{}\" is neither a host name nor an IP address", host));
  }
  return add_name(names, GEN_DNS, host);
}

std::string identity_uri(const Subject& subject) {
  switch (subject.kind) {
    case PeerIdentity::Kind::kServer:
      return "covey:server";
    case PeerIdentity::Kind::kOperator:
      return "covey:operator";
    case PeerIdentity::Kind::kDevice:
      break;
  }
  return fmt::format("covey:client:{}", value_of(subject.client));
}

Result<void> add_alternative_names(X509* certificate, const Subject& subject) {
  const openssl::Names names(GENERAL_NAMES_new());
  if (!names) return failure("naming a certificate's holder");
  COVEY_TRY(add_name(names.get(), GEN_URI, identity_uri(subject)));
  for (const auto& host : subject.host_names) COVEY_TRY(add_host_name(names.get(), host));
  if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) !=
      1) {
    return failure("naming a certificate's holder");
  }
  return {};
}

/// A version 3 certificate with all that does not depend on its role; `issuer` null: issued by
/// itself.
Result<Certificate> begin_certificate(EVP_PKEY* public_key, X509* issuer,
                                      const std::string& common_name, int valid_days) {
  Certificate certificate(X509_new());
  if (!certificate || X509_set_version(certificate.get(), X509_VERSION_3) != 1 ||
      X509_set_pubkey(certificate.get(), public_key) != 1) {
    return failure("making a certificate");
  }
  COVEY_TRY(set_random_serial(certificate.get()));
  COVEY_TRY(set_validity(certificate.get(), valid_days));
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  COVEY_TRY(openssl::set_common_name(subject, common_name));
  if (X509_set_issuer_name(certificate.get(),
                           issuer == nullptr ? subject : X509_get_subject_name(issuer)) != 1) {
    return failure("naming a certificate's issuer");
  }
  return certificate;
}

Result<std::string> sign(X509* certificate, EVP_PKEY* key) {
  if (X509_sign(certificate, key, EVP_sha256()) == 0) return failure("signing a certificate");
  return openssl::to_pem(certificate);
}

/// The end certificate that RFC 5280 4.2 asks of one that may authenticate a TLS peer and no more.
Result<std::string> certify(const openssl::Signer& signer, EVP_PKEY* public_key,
                            const Subject& subject) {
  X509* issuer = signer.certificate.get();
  COVEY_ASSIGN(const Certificate certificate,
               begin_certificate(public_key, issuer, subject.common_name, subject.valid_days));
  const bool server = subject.kind == PeerIdentity::Kind::kServer;
  X509* leaf = certificate.get();
  COVEY_TRY(add_extension(leaf, issuer, NID_basic_constraints, "critical,CA:FALSE"));
  COVEY_TRY(add_extension(leaf, issuer, NID_key_usage, "critical,digitalSignature"));
  COVEY_TRY(add_extension(leaf, issuer, NID_ext_key_usage, server ? "serverAuth" : "clientAuth"));
  COVEY_TRY(add_extension(leaf, issuer, NID_subject_key_identifier, "hash"));
  COVEY_TRY(add_extension(leaf, issuer, NID_authority_key_identifier, "keyid:always"));
  COVEY_TRY(add_alternative_names(leaf, subject));
  return sign(leaf, signer.key.get());
}

Result<void> check_is_p256(EVP_PKEY* key) {
  char group[64] = {};
  std::size_t length = 0;
  if (key == nullptr || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
      EVP_PKEY_get_group_name(key, group, sizeof group, &length) != 1 ||
      std::string_view(group, length) != "prime256v1") {
    ERR_clear_error();
    return invalid_argument("the request's key is not an ECDSA key on the curve P-256");
  }
  return {};
}

}  // namespace

Result<KeyAndCertificate> make_authority(const std::string& common_name, int valid_days) {
  COVEY_ASSIGN(const Key key, openssl::generate_key());
  COVEY_ASSIGN(const Certificate certificate,
               begin_certificate(key.get(), nullptr, common_name, valid_days));
  X509* self = certificate.get();
  // pathlen 0: it signs end certificates only.
  COVEY_TRY(add_extension(self, self, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  COVEY_TRY(add_extension(self, self, NID_key_usage, "critical,keyCertSign,cRLSign"));
  COVEY_TRY(add_extension(self, self, NID_subject_key_identifier, "hash"));
  KeyAndCertificate result;
  COVEY_ASSIGN(result.certificate_pem, sign(self, key.get()));
  COVEY_ASSIGN(result.key_pem, openssl::to_pem(key.get()));
  return result;
}

Result<KeyAndCertificate> issue(const KeyAndCertificate& authority, const Subject& subject) {
  COVEY_ASSIGN(const openssl::Signer signer, openssl::load_signer(authority));
  COVEY_ASSIGN(const Key key, openssl::generate_key());
  KeyAndCertificate result;
  COVEY_ASSIGN(result.certificate_pem, certify(signer, key.get(), subject));
  COVEY_ASSIGN(result.key_pem, openssl::to_pem(key.get()));
  return result;
}

Result<KeyAndRequest> make_request(const std::string& common_name) {
  COVEY_ASSIGN(const Key key, openssl::generate_key());
  const openssl::Request request(X509_REQ_new());
  if (!request || X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1) {
    return failure("making a certificate request");
  }
  COVEY_TRY(openssl::set_common_name(X509_REQ_get_subject_name(request.get()), common_name));
  if (X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0) {
    return failure("signing a certificate request");
  }
  KeyAndRequest result;
  COVEY_ASSIGN(result.request_pem, openssl::to_pem(request.get()));
  COVEY_ASSIGN(result.key_pem, openssl::to_pem(key.get()));
  return result;
}

Result<std::string> sign_request(const KeyAndCertificate& authority, const std::string& request_pem,
                                 const Subject& subject) {
  COVEY_ASSIGN(const openssl::Signer signer, openssl::load_signer(authority));
  COVEY_ASSIGN(const openssl::Request request, openssl::parse_request(request_pem));
  EVP_PKEY* public_key = X509_REQ_get0_pubkey(request.get());
  COVEY_TRY(check_is_p256(public_key));
  // The signature proves that whoever asks holds the key, and that nothing was changed on the way.
  if (X509_REQ_verify(request.get(), public_key) != 1) {
    ERR_clear_error();
    return malformed(
        "the certificate request's own signature is wrong: it was changed, or made "
        "without the key it names");
  }
  return certify(signer, public_key, subject);
}

}  // namespace covey::transport
