#pragma once

#include <covey/ids.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/result.hpp>
#include <covey/transport/connection.hpp>
#include <memory>
#include <string>

namespace covey {

/// A folder that lets its holder take part in a run: the authority's certificate, an own
/// certificate and key, and where the server is. Made by `covey provision`.
struct Kit {
  transport::TlsFiles tls;  ///< paths of files that exist
  std::string address;      ///< host:port of the server
  std::string server_name;  ///< in the server's certificate
  ClientId client{};        ///< devices
  /// Devices: what other devices know it by, against a malicious server. Null in a kit without an
  /// identity: then such rounds are declined.
  std::shared_ptr<const privacy::DeviceCredentials> credentials;
};

/// Reads `directory`/client.toml. Errors name file, line and key; also when a file is missing or
/// the certificate or the identity is not this device's. The identity is what the keys
/// certificates.identity and identity-key name, or identity.cert and identity.key where both exist.
Result<Kit> load_device_kit(const std::string& directory);

/// Reads `directory`/operator.toml.
Result<Kit> load_operator_kit(const std::string& directory);

/// ca.pem, server.pem, server.key and crl.pem, all of which must be there: without the list of
/// revoked certificates the revoked ones would be let in again.
Result<transport::TlsFiles> load_server_kit(const std::string& directory);

}  // namespace covey
