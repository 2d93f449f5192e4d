#pragma once

#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <covey/transport/certificates.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "server/daemon/provision_files.hpp"

namespace covey::provision {

/// Where devices find the server, as written into their kits.
struct ServerPlace {
  std::string address;                    ///< host:port
  std::vector<std::string> server_names;  ///< the server's certificate holds these

  std::string host() const;
  /// The name devices insist on: the address's host where the certificate has it.
  const std::string& server_name() const;
};
/// Error when `address` is not host:port.
Result<void> check_address(const std::string& address);

/// A run's certificate authority as a folder: ca.pem, ca.key, the revocation list, where the server
/// is, and issued.jsonl, a line per certificate, which keeps a client number from being given out
/// twice. Other commands are locked out of the folder around it while this object lives.
class Authority {
 public:
  static constexpr const char* kKeyFile = "ca.key";

  /// Error when there is none in `directory`.
  static Result<Authority> open(const std::filesystem::path& directory);
  /// Error when `directory` exists.
  static Result<Authority> create(const std::filesystem::path& directory, int valid_days);
  Authority(Authority&&) noexcept = default;
  ~Authority();

  const std::filesystem::path& directory() const { return directory_; }
  const std::string& certificate_pem() const { return signer_.certificate_pem; }
  const std::string& crl_pem() const { return crl_pem_; }

  /// Issues with a new key. The certificate is in the ledger before anyone gets it.
  Result<transport::KeyAndCertificate> issue(const transport::Subject& subject);
  /// Issues for the key of a request.
  Result<std::string> approve(const std::string& request_pem, const transport::Subject& subject);
  /// Vouches for a device's key among devices. In the ledger before anyone gets it.
  Result<IdentityCertificate> certify_identity(ClientId client, const PublicKey& key);
  /// Revokes and remembers; returns the new list.
  Result<std::string> revoke(const std::vector<std::string>& certificate_pems);

  bool was_issued(ClientId client) const;
  /// The number after the largest ever issued; 0 when there is none.
  std::uint64_t next_client() const;

  /// Empty before the first `remember`.
  const std::optional<ServerPlace>& place() const { return place_; }
  Result<void> remember(const ServerPlace& place);

 private:
  Authority(std::filesystem::path directory, DirectoryLock lock)
      : directory_(std::move(directory)), lock_(std::move(lock)) {}
  Result<void> load_ledger();
  Result<void> load_place();
  Result<void> enter(const std::string& certificate_pem);

  std::filesystem::path directory_;
  DirectoryLock lock_;
  transport::KeyAndCertificate signer_;
  std::string crl_pem_;
  std::vector<std::uint64_t> issued_clients_;
  std::optional<ServerPlace> place_;
};

}  // namespace covey::provision
