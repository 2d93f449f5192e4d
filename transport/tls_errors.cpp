#include "tls_errors.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/sslerr.h>

#include <array>
#include <ctime>

#include "address.hpp"

namespace covey::transport {
namespace {

std::string describe_reason(int reason, const TlsFailure& failure) {
  switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
      return failure.refusal.empty() ? "peer's certificate does not verify"
                                     : std::string(failure.refusal);
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return "peer sent no certificate";
    case SSL_R_NO_APPLICATION_PROTOCOL:
      return "peer does not speak covey/1 (no common ALPN protocol)";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_SSL_VERSION:
      return "peer does not support TLS 1.3";
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
      return "peer speaks plain HTTP, not TLS";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
      return failure.handshake ? "peer closed the connection during the handshake"
                               : "peer's connection ended without a TLS goodbye";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_UNEXPECTED_RECORD:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_BAD_PACKET_LENGTH:
      return failure.handshake ? "peer does not speak TLS" : "peer sent a broken TLS record";
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
      return "peer sent a TLS record that does not decrypt";
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_SUITABLE_GROUPS:
      return "peer offers neither X25519 nor P-256";
    case SSL_R_NO_SHARED_CIPHER:
      return "peer offers no TLS 1.3 cipher of ours";
    default: {
      const char* text = ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, reason));
      return fmt::format("TLS error: {}", text != nullptr ? text : fmt::format("{}", reason));
    }
  }
}

std::string describe_certificate_error(X509_STORE_CTX* context, X509* certificate, int error) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "expired on " + date_of(X509_get0_notAfter(certificate));
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return fmt::format("is valid only from {}: are both clocks right?",
                         date_of(X509_get0_notBefore(certificate)));
    case X509_V_ERR_CERT_REVOKED:
      return "was revoked";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "is signed by another authority";
    case X509_V_ERR_INVALID_PURPOSE:
      return "is not meant for this use (extended key usage)";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: {
      X509_VERIFY_PARAM* parameters = X509_STORE_CTX_get0_param(context);
      const char* host = X509_VERIFY_PARAM_get0_host(parameters, 0);
      if (host != nullptr) return fmt::format("is not for '{}'", host);
      char* address = X509_VERIFY_PARAM_get1_ip_asc(parameters);
      std::string text = fmt::format("is not for '{}'", address != nullptr ? address : "");
      OPENSSL_free(address);
      return text;
    }
    case X509_V_ERR_UNABLE_TO_GET_CRL:
      return "cannot be checked: there is no revocation list of its authority";
    case X509_V_ERR_CRL_HAS_EXPIRED: {
      X509_CRL* crl = X509_STORE_CTX_get0_current_crl(context);
      const ASN1_TIME* end = crl != nullptr ? X509_CRL_get0_nextUpdate(crl) : nullptr;
      return fmt::format("cannot be checked: the revocation list expired on {}; make a new one",
                         end != nullptr ? date_of(end) : "an unknown day");
    }
    default:
      return fmt::format("does not verify: {}", X509_verify_cert_error_string(error));
  }
}

}  // namespace

std::string describe_tls_failure(const TlsFailure& failure) {
  // The first error is the cause, later ones are its consequences.
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code != 0 && ERR_GET_LIB(code) == ERR_LIB_SSL) {
    const int reason = ERR_GET_REASON(code);
    return reason > SSL_AD_REASON_OFFSET
               ? describe_alert(reason - SSL_AD_REASON_OFFSET, failure.peer)
               : describe_reason(reason, failure);
  }
  if (code != 0 && ERR_GET_LIB(code) != ERR_LIB_SYS) {
    const char* text = ERR_reason_error_string(code);
    return fmt::format("TLS error: {}", text != nullptr ? text : fmt::format("{:x}", code));
  }
  if (failure.system_error != 0) return words_for(failure.system_error);
  return failure.handshake ? "peer closed the connection during the handshake"
                           : "peer closed the connection";
}

std::string describe_alert(int alert, std::string_view peer) {
  const auto refused = [peer](std::string_view why) {
    return fmt::format("{} refused our certificate: {}", peer, why);
  };
  switch (alert) {  // RFC 8446, section 6.2
    case SSL_AD_CERTIFICATE_EXPIRED:
      return refused("certificate expired");
    case SSL_AD_CERTIFICATE_REVOKED:
      return refused("certificate revoked");
    case SSL_AD_UNKNOWN_CA:
      return refused("certificate signed by another authority");
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
      return refused("certificate not meant for this use");
    case SSL_AD_BAD_CERTIFICATE:
      return refused("certificate does not fit");
    case SSL_AD_CERTIFICATE_UNKNOWN:
      return refused("certificate does not verify");
    case SSL_AD_ACCESS_DENIED:
      return refused("access denied");
    case SSL_AD_CERTIFICATE_REQUIRED:
      return fmt::format("{} wants a certificate and was sent none", peer);
    case SSL_AD_NO_APPLICATION_PROTOCOL:
      return fmt::format("{} does not speak covey/1 (no common ALPN protocol)", peer);
    case SSL_AD_PROTOCOL_VERSION:
      return fmt::format("{} does not accept this TLS version", peer);
    default:
      return fmt::format("{} ended TLS: {} (alert {})", peer, SSL_alert_desc_string_long(alert),
                         alert);
  }
}

std::string describe_verification(X509_STORE_CTX* context, std::string_view subject) {
  const int error = X509_STORE_CTX_get_error(context);
  X509* certificate = X509_STORE_CTX_get_current_cert(context);
  if (certificate == nullptr) {
    return fmt::format("{} does not verify: {}", subject, X509_verify_cert_error_string(error));
  }
  const std::string name = common_name_of(certificate);
  return fmt::format("{} {}{}", subject, describe_certificate_error(context, certificate, error),
                     name.empty() ? "" : fmt::format(" ({})", name));
}

std::string date_of(const ASN1_TIME* time) {
  std::tm calendar{};
  if (ASN1_TIME_to_tm(time, &calendar) != 1) return "an unreadable date";
  std::array<char, 16> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%d", &calendar);
  return {text.data(), length};
}

std::string common_name_of(const X509* certificate) {
  std::array<char, 256> text{};
  const int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName,
                                               text.data(), static_cast<int>(text.size()));
  std::string name(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  // The name may come from a certificate nobody verified, and goes into logs.
  for (char& c : name) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return name;
}

}  // namespace covey::transport
