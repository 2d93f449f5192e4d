#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

/// What the sub-commands of `covey provision` do. Each returns the JSON object that reports it.
namespace covey::provision {

/// Client numbers fit TOML's whole numbers.
inline constexpr std::uint64_t kLastClient = 0x7fffffffffffffff;

struct CreateOptions {
  std::string out = "kits";
  std::uint32_t devices = 1;
  std::vector<std::string> server_names;  ///< empty: as before, else 127.0.0.1 and localhost
  std::string address;                    ///< "": as before, else 127.0.0.1:7443
  int valid_days = 825;
  std::optional<std::uint64_t> first_client;  ///< else after the last
};
/// An authority, the server's, the operator's and the devices' kits; adds devices to what is there.
Result<nlohmann::json> create(const CreateOptions& options);

struct RequestOptions {
  std::string out = "device-kit";
  std::string name;
};
/// Keys that stay on the device, of its certificate and of its identity, and the request to have
/// both certified.
Result<nlohmann::json> request(const RequestOptions& options);

struct ApproveOptions {
  std::string authority = "kits/authority";
  std::string request;
  std::uint64_t client = 0;
  std::string out;           ///< the certificate, "" for none
  std::string identity_out;  ///< the identity's certificate, "" for none
  std::string kit;           ///< folder for certificates, ca.pem and client.toml, "" for none
  int valid_days = 825;
  bool again = false;  ///< a number that was given out before
};
Result<nlohmann::json> approve(const ApproveOptions& options);

struct IdentityOptions {
  std::string authority = "kits/authority";
  std::string kit;
};
/// Gives a device's kit that has no identity a new one.
Result<nlohmann::json> add_identity(const IdentityOptions& options);

struct RevokeOptions {
  std::string authority = "kits/authority";
  std::string server = "kits/server";
  std::vector<std::string> certificates;
};
Result<nlohmann::json> revoke(const RevokeOptions& options);

/// Of a certificate, or of an identity's.
Result<nlohmann::json> show(const std::string& certificate);

}  // namespace covey::provision
