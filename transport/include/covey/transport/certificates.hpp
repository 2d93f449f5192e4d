#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <covey/transport/connection.hpp>

/// The run's own public key infrastructure: ECDSA P-256 certificates, as PEM text.
namespace covey::transport {

struct KeyAndCertificate {
  std::string key_pem;
  std::string certificate_pem;
};

/// What a certificate is to say. Validity in days from now; negative makes an expired one (for tests).
struct Subject {
  PeerIdentity::Kind kind = PeerIdentity::Kind::kDevice;
  std::string common_name;
  ClientId client{};                     ///< devices
  std::vector<std::string> host_names{};  ///< servers: DNS names and IP addresses
  int valid_days = 825;
};

Result<KeyAndCertificate> make_authority(const std::string& common_name, int valid_days);
Result<KeyAndCertificate> issue(const KeyAndCertificate& authority, const Subject& subject);

/// A key that never leaves the device, and the PKCS#10 request to have it signed.
struct KeyAndRequest {
  std::string key_pem;
  std::string request_pem;
};
Result<KeyAndRequest> make_request(const std::string& common_name);
/// Signs the request's public key for `subject` (what the request asks for is not trusted).
Result<std::string> sign_request(const KeyAndCertificate& authority, const std::string& request_pem,
                                 const Subject& subject);

/// A signed revocation list of `authority` with what `previous_crl_pem` ("" for none) held and these.
Result<std::string> revoke(const KeyAndCertificate& authority, const std::string& previous_crl_pem,
                           const std::vector<std::string>& certificate_pems);

/// Reads a certificate's identity. Error when it is not one of a covey run.
Result<PeerIdentity> identity_of(const std::string& certificate_pem);

/// A certificate for people to read.
struct CertificateDetails {
  bool is_authority = false;             ///< then `identity` has only the common name
  PeerIdentity identity;
  std::string serial;                    ///< upper-case hexadecimal
  std::string not_before, not_after;     ///< ISO 8601, UTC
  bool expired = false;
  std::vector<std::string> host_names;   ///< servers: DNS names and IP addresses
};
/// Error when it is neither an authority's nor one of a covey run.
Result<CertificateDetails> describe(const std::string& certificate_pem);

}  // namespace covey::transport
