#include "server/daemon/kit.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <covey/transport/certificates.hpp>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <string_view>

namespace covey {
namespace {

namespace fs = std::filesystem;
using transport::PeerIdentity;

Result<std::string> existing_file(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return not_found(
        fmt::format("{}: no such file; kits are made by `covey provision create`", path.string()));
  }
  return path.string();
}

/// The keys of a kit's TOML file. Every error names the file, and the line where there is one.
class KitFile {
 public:
  static Result<KitFile> load(const fs::path& path) {
    COVEY_ASSIGN(const std::string name, existing_file(path));
    std::ifstream stream(path);
    std::ostringstream text;
    text << stream.rdbuf();
    if (!stream) return failed(name + ": cannot be read");
    try {
      return KitFile(name, toml::parse(text.str(), name));
    } catch (const toml::parse_error& error) {
      return malformed(fmt::format("{}:{}: {}", name, error.source().begin.line,
                                   std::string(error.description())));
    }
  }

  Result<std::string> text(std::string_view key) const {
    const auto node = table_.at_path(key);
    if (!node) return missing(key);
    if (const auto value = node.value_exact<std::string>(); value && !value->empty()) return *value;
    return wrong(key, *node.node(), "must be a text that is not empty");
  }

  Result<ClientId> client(std::string_view key) const {
    const auto node = table_.at_path(key);
    if (!node) return missing(key);
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < 0) return wrong(key, *node.node(), "must be a whole number from 0");
    return ClientId{static_cast<std::uint64_t>(*value)};
  }

  Result<void> check_keys(std::initializer_list<std::string_view> keys) const {
    COVEY_TRY(check_keys(table_, "", keys));
    if (const auto* certificates = table_["certificates"].as_table()) {
      return check_keys(*certificates, "certificates.", keys);
    }
    return {};
  }

 private:
  KitFile(std::string name, toml::table table) : name_(std::move(name)), table_(std::move(table)) {}

  Result<void> check_keys(const toml::table& table, const std::string& prefix,
                          std::initializer_list<std::string_view> keys) const {
    for (const auto& [key, node] : table) {
      const std::string path = prefix + std::string(key.str());
      if (std::find(keys.begin(), keys.end(), path) == keys.end()) {
        return wrong(path, node, "is not a key of a kit");
      }
    }
    return {};
  }

  Error missing(std::string_view key) const {
    return invalid_argument(fmt::format("{}: the key \"{}\" is missing", name_, key));
  }
  Error wrong(std::string_view key, const toml::node& node, std::string_view problem) const {
    return invalid_argument(
        fmt::format("{}:{}: \"{}\" {}", name_, node.source().begin.line, key, problem));
  }

  std::string name_;
  toml::table table_;
};

/// The identity of the kit's own certificate, which must be of `kind`.
Result<PeerIdentity> own_identity(const std::string& path, PeerIdentity::Kind kind,
                                  std::string_view role) {
  std::ifstream stream(path);
  std::ostringstream pem;
  pem << stream.rdbuf();
  auto identity = transport::identity_of(pem.str());
  if (!identity.ok()) return with_context(path, identity.error());
  if (identity->kind != kind) {
    return invalid_argument(fmt::format("{}: this is not the certificate of {}", path, role));
  }
  return identity;
}

/// What device and operator kits have in common.
Result<Kit> read_kit(const KitFile& file, const fs::path& directory) {
  Kit kit;
  COVEY_ASSIGN(kit.address, file.text("server"));
  COVEY_ASSIGN(kit.server_name, file.text("server-name"));
  COVEY_ASSIGN(const std::string ca, file.text("certificates.ca"));
  COVEY_ASSIGN(const std::string certificate, file.text("certificates.certificate"));
  COVEY_ASSIGN(const std::string key, file.text("certificates.key"));
  COVEY_ASSIGN(kit.tls.ca, existing_file(directory / ca));
  COVEY_ASSIGN(kit.tls.certificate, existing_file(directory / certificate));
  COVEY_ASSIGN(kit.tls.key, existing_file(directory / key));
  return kit;
}

}  // namespace

Result<Kit> load_device_kit(const std::string& directory) {
  const fs::path path = fs::path(directory) / "client.toml";
  COVEY_ASSIGN(const KitFile file, KitFile::load(path));
  COVEY_TRY(file.check_keys({"server", "server-name", "client", "certificates", "certificates.ca",
                             "certificates.certificate", "certificates.key"}));
  COVEY_ASSIGN(Kit kit, read_kit(file, directory));
  COVEY_ASSIGN(kit.client, file.client("client"));
  COVEY_ASSIGN(const PeerIdentity identity,
               own_identity(kit.tls.certificate, PeerIdentity::Kind::kDevice, "a device"));
  if (identity.client != kit.client) {
    return invalid_argument(
        fmt::format("{}: says client {}, but {} is the certificate of client {}", path.string(),
                    value_of(kit.client), kit.tls.certificate, value_of(identity.client)));
  }
  return kit;
}

Result<Kit> load_operator_kit(const std::string& directory) {
  COVEY_ASSIGN(const KitFile file, KitFile::load(fs::path(directory) / "operator.toml"));
  COVEY_TRY(file.check_keys({"server", "server-name", "certificates", "certificates.ca",
                             "certificates.certificate", "certificates.key"}));
  COVEY_ASSIGN(Kit kit, read_kit(file, directory));
  COVEY_TRY(own_identity(kit.tls.certificate, PeerIdentity::Kind::kOperator, "an operator"));
  return kit;
}

Result<transport::TlsFiles> load_server_kit(const std::string& directory) {
  const fs::path kit(directory);
  transport::TlsFiles files;
  COVEY_ASSIGN(files.ca, existing_file(kit / "ca.pem"));
  COVEY_ASSIGN(files.certificate, existing_file(kit / "server.pem"));
  COVEY_ASSIGN(files.key, existing_file(kit / "server.key"));
  COVEY_ASSIGN(files.crl, existing_file(kit / "crl.pem"));
  COVEY_TRY(own_identity(files.certificate, PeerIdentity::Kind::kServer, "a server"));
  return files;
}

}  // namespace covey
