#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <covey/result.hpp>
#include <covey/transport/certificates.hpp>
#include <memory>
#include <string>

#include "openssl.hpp"

/// OpenSSL's objects as owned values, and PEM text <-> objects.
namespace covey::transport::openssl {

using Bio = BioPtr;
using Key = EvpPkeyPtr;
using Certificate = X509Ptr;
using RevocationList = X509CrlPtr;
using Request = std::unique_ptr<X509_REQ, OpensslFree<X509_REQ_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, OpensslFree<GENERAL_NAMES_free>>;
using Integer = std::unique_ptr<ASN1_INTEGER, OpensslFree<ASN1_INTEGER_free>>;
using Timestamp = std::unique_ptr<ASN1_TIME, OpensslFree<ASN1_TIME_free>>;
using BigNumber = std::unique_ptr<BIGNUM, OpensslFree<BN_free>>;

/// Clocks of a run's machines may disagree by this much: what is signed is valid from that long
/// ago.
inline constexpr long kClockSkewSeconds = 5 * 60;
inline constexpr long kSecondsPerDay = 24 * 60 * 60;

/// kFailed, "<doing>: <OpenSSL's reason>". Empties the thread's error queue.
Error failure(const std::string& doing);

Result<Key> generate_key();
/// Error for text that is not one unencrypted private key; never asks for a passphrase.
Result<Key> parse_key(const std::string& pem);
Result<Certificate> parse_certificate(const std::string& pem);
Result<Request> parse_request(const std::string& pem);
Result<RevocationList> parse_revocation_list(const std::string& pem);

Result<std::string> to_pem(EVP_PKEY* private_key);
Result<std::string> to_pem(X509* certificate);
Result<std::string> to_pem(X509_REQ* request);
Result<std::string> to_pem(X509_CRL* list);

/// A certificate authority ready to sign. Error when the certificate is not an authority's or the
/// key is not its key.
struct Signer {
  Key key;
  Certificate certificate;
};
Result<Signer> load_signer(const KeyAndCertificate& authority);

/// A common name of 1 to 64 characters of UTF-8 (X.520's upper bound), and nothing else.
Result<void> set_common_name(X509_NAME* name, const std::string& common_name);

}  // namespace covey::transport::openssl
