#include <fmt/format.h>
#include <openssl/err.h>

#include <covey/transport/certificates.hpp>

#include "certificates_openssl.hpp"

namespace covey::transport {
namespace {

using openssl::failure;
using openssl::RevocationList;

/// A list never runs out by itself within a run's life: a server that cannot fetch a newer one must
/// not lock its fleet out.
constexpr long kListValidSeconds = 10L * 365 * openssl::kSecondsPerDay;

/// The list to go on from; a new one when there was none.
Result<RevocationList> load_or_begin(const openssl::Signer& signer, const std::string& pem) {
  if (!pem.empty()) {
    COVEY_ASSIGN(RevocationList list, openssl::parse_revocation_list(pem));
    if (X509_CRL_verify(list.get(), signer.key.get()) != 1) {
      ERR_clear_error();
      return invalid_argument("the revocation list was not signed by this authority");
    }
    return list;
  }
  RevocationList list(X509_CRL_new());
  if (!list || X509_CRL_set_version(list.get(), X509_CRL_VERSION_2) != 1 ||
      X509_CRL_set_issuer_name(list.get(), X509_get_subject_name(signer.certificate.get())) != 1) {
    return failure("making a revocation list");
  }
  X509V3_CTX context;
  X509V3_set_ctx(&context, signer.certificate.get(), nullptr, nullptr, list.get(), 0);
  X509_EXTENSION* extension =
      X509V3_EXT_conf_nid(nullptr, &context, NID_authority_key_identifier, "keyid:always");
  const bool added = extension != nullptr && X509_CRL_add_ext(list.get(), extension, -1) == 1;
  X509_EXTENSION_free(extension);
  if (!added) return failure("naming the authority in a revocation list");
  return list;
}

Result<openssl::Timestamp> time_from_now(long seconds) {
  openssl::Timestamp time(X509_gmtime_adj(nullptr, seconds));
  if (!time) return failure("reading the clock");
  return time;
}

Result<void> add_entry(const openssl::Signer& signer, X509_CRL* list,
                       const std::string& certificate_pem) {
  COVEY_ASSIGN(const openssl::Certificate certificate, openssl::parse_certificate(certificate_pem));
  if (X509_verify(certificate.get(), signer.key.get()) != 1) {
    ERR_clear_error();
    return invalid_argument("the certificate was not issued by this authority");
  }
  if (X509_check_ca(certificate.get()) == 1) {
    return invalid_argument(
        "the certificate is the authority's own, which no list of its own can revoke");
  }
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate.get());
  X509_REVOKED* known = nullptr;
  if (X509_CRL_get0_by_serial(list, &known, serial) == 1) return {};
  COVEY_ASSIGN(const openssl::Timestamp now, time_from_now(0));
  X509_REVOKED* entry = X509_REVOKED_new();
  if (entry == nullptr ||
      X509_REVOKED_set_serialNumber(entry, const_cast<ASN1_INTEGER*>(serial)) != 1 ||
      X509_REVOKED_set_revocationDate(entry, now.get()) != 1 ||
      X509_CRL_add0_revoked(list, entry) != 1) {
    X509_REVOKED_free(entry);
    return failure("adding to the revocation list");
  }
  return {};
}

/// The number grows by one with every list (RFC 5280 5.2.3), so that two copies can be told apart.
Result<void> count_up(X509_CRL* list) {
  const openssl::Integer previous(
      static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(list, NID_crl_number, nullptr, nullptr)));
  const openssl::BigNumber number(previous ? ASN1_INTEGER_to_BN(previous.get(), nullptr)
                                           : BN_new());
  if (!number || BN_add_word(number.get(), 1) != 1) return failure("numbering a revocation list");
  const openssl::Integer next(BN_to_ASN1_INTEGER(number.get(), nullptr));
  if (!next ||
      X509_CRL_add1_ext_i2d(list, NID_crl_number, next.get(), 0, X509V3_ADD_REPLACE) != 1) {
    return failure("numbering a revocation list");
  }
  return {};
}

}  // namespace

Result<std::string> revoke(const KeyAndCertificate& authority, const std::string& previous_crl_pem,
                           const std::vector<std::string>& certificate_pems) {
  COVEY_ASSIGN(const openssl::Signer signer, openssl::load_signer(authority));
  COVEY_ASSIGN(const RevocationList list, load_or_begin(signer, previous_crl_pem));
  for (std::size_t i = 0; i < certificate_pems.size(); ++i) {
    if (auto added = add_entry(signer, list.get(), certificate_pems[i]); !added.ok()) {
      return with_context(fmt::format("certificate {} of {}", i + 1, certificate_pems.size()),
                          added.error());
    }
  }
  COVEY_TRY(count_up(list.get()));
  COVEY_ASSIGN(const openssl::Timestamp updated, time_from_now(-openssl::kClockSkewSeconds));
  COVEY_ASSIGN(const openssl::Timestamp next_update, time_from_now(kListValidSeconds));
  if (X509_CRL_set1_lastUpdate(list.get(), updated.get()) != 1 ||
      X509_CRL_set1_nextUpdate(list.get(), next_update.get()) != 1 ||
      X509_CRL_sort(list.get()) != 1 ||
      X509_CRL_sign(list.get(), signer.key.get(), EVP_sha256()) == 0) {
    return failure("signing a revocation list");
  }
  return openssl::to_pem(list.get());
}

}  // namespace covey::transport
