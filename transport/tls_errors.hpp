#pragma once

#include <string>
#include <string_view>

#include "openssl.hpp"

/// OpenSSL's failures in sentences.
namespace covey::transport {

/// What happened in an SSL_* call that did not succeed.
struct TlsFailure {
  int ssl_error = 0;         ///< SSL_get_error
  int system_error = 0;      ///< errno right after the call
  bool handshake = false;    ///< during the handshake
  std::string_view peer;     ///< what to call the other end: "server", "client"
  std::string_view refusal;  ///< why this end refused the peer's certificate, "" if it did not
};

/// Empties OpenSSL's error queue of this thread.
std::string describe_tls_failure(const TlsFailure& failure);

/// An alert the peer sent: "server refused our certificate: certificate revoked".
std::string describe_alert(int alert, std::string_view peer);

/// Why a certificate failed verification: "peer's certificate (device-7) expired on 2026-01-31".
/// `subject` is what to call it: "peer's certificate".
std::string describe_verification(X509_STORE_CTX* context, std::string_view subject);

/// "2026-01-31", in UTC.
std::string date_of(const ASN1_TIME* time);
std::string common_name_of(const X509* certificate);

}  // namespace covey::transport
