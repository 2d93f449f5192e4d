#include "server/daemon/kit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/transport/certificates.hpp>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <variant>

#include "client/daemon/settings_file.hpp"

namespace covey {
namespace {

namespace fs = std::filesystem;
using transport::PeerIdentity;

Result<std::string> text_of_file(const std::string& path) {
  std::ifstream stream;
  stream.rdbuf()->pubsetbuf(nullptr, 0);  // a buffer would keep a copy of a key
  stream.open(path);
  std::error_code error;
  std::string text(fs::file_size(path, error), '\0');
  if (error || !stream.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return failed(path + ": cannot be read");
  }
  return text;
}

Result<std::string> existing_file(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return not_found(
        fmt::format("{}: no such file; kits are made by `covey provision create`", path.string()));
  }
  return path.string();
}

/// The keys of a kit's file. Every error names the file, and the line where there is one.
class KitFile {
 public:
  static Result<KitFile> load(const fs::path& path) {
    COVEY_ASSIGN(const std::string name, existing_file(path));
    COVEY_ASSIGN(SettingsFile file, SettingsFile::read(name));
    return KitFile(std::move(file));
  }

  Result<std::string> text(std::string_view key) const {
    const Setting* setting = file_.find(key);
    if (setting == nullptr) return file_.missing(key);
    const auto* value = std::get_if<std::string>(&setting->value);
    if (value != nullptr && !value->empty()) return *value;
    return file_.wrong(*setting, "must be a text that is not empty");
  }

  bool has(std::string_view key) const { return file_.find(key) != nullptr; }

  Result<ClientId> client(std::string_view key) const {
    const Setting* setting = file_.find(key);
    if (setting == nullptr) return file_.missing(key);
    const auto* value = std::get_if<std::int64_t>(&setting->value);
    if (value != nullptr && *value >= 0) return ClientId{static_cast<std::uint64_t>(*value)};
    return file_.wrong(*setting, "must be a whole number from 0");
  }

  Result<void> check_keys(std::initializer_list<std::string_view> keys) const {
    for (const Setting& setting : file_.settings()) {
      if (std::find(keys.begin(), keys.end(), setting.key) == keys.end()) {
        return file_.wrong(setting, "is not a key of a kit");
      }
    }
    return {};
  }

 private:
  explicit KitFile(SettingsFile file) : file_(std::move(file)) {}

  SettingsFile file_;
};

/// The identity of the kit's own certificate, which must be of `kind`.
Result<PeerIdentity> own_identity(const std::string& path, PeerIdentity::Kind kind,
                                  std::string_view role) {
  COVEY_ASSIGN(const std::string pem, text_of_file(path));
  auto identity = transport::identity_of(pem);
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

/// What is parsed of a file, its errors naming the file.
template <typename Parse>
auto parsed_file(const std::string& path, Parse&& parse) -> decltype(parse(path)) {
  COVEY_ASSIGN(std::string text, text_of_file(path));
  auto parsed = parse(text);
  privacy::wipe(std::as_writable_bytes(std::span(text)));  // it may be a key
  if (!parsed.ok()) return with_context(path, parsed.error());
  return parsed;
}

/// Null where the kit has no identity.
Result<std::shared_ptr<const privacy::DeviceCredentials>> read_credentials(
    const KitFile& file, const fs::path& directory, const Kit& kit) {
  constexpr std::string_view kCertificate = "certificates.identity";
  constexpr std::string_view kKey = "certificates.identity-key";
  std::string certificate_name = "identity.cert";
  std::string key_name = "identity.key";
  if (file.has(kCertificate) || file.has(kKey)) {
    COVEY_ASSIGN(certificate_name, file.text(kCertificate));
    COVEY_ASSIGN(key_name, file.text(kKey));
  } else if (std::error_code error; !fs::exists(directory / certificate_name, error) ||
                                    !fs::exists(directory / key_name, error)) {
    return std::shared_ptr<const privacy::DeviceCredentials>();
  }
  COVEY_ASSIGN(const std::string certificate_path, existing_file(directory / certificate_name));
  COVEY_ASSIGN(const std::string key_path, existing_file(directory / key_name));
  COVEY_ASSIGN(auto certificate,
               parsed_file(certificate_path, privacy::identity_certificate_from_text));
  COVEY_ASSIGN(auto identity, parsed_file(key_path, privacy::Identity::from_pem));
  COVEY_ASSIGN(auto authority,
               parsed_file(kit.tls.ca, privacy::AuthorityKey::from_certificate_pem));
  if (certificate.client != kit.client) {
    return invalid_argument(
        fmt::format("{}: is the identity of client {}, but the kit is client {}'s",
                    certificate_path, value_of(certificate.client), value_of(kit.client)));
  }
  if (certificate.key != identity.public_key()) {
    return invalid_argument(fmt::format("{}: is not of the key in {}", certificate_path, key_path));
  }
  if (const auto checked = authority.check(certificate); !checked.ok()) {
    return with_context(certificate_path, checked.error());
  }
  return std::make_shared<const privacy::DeviceCredentials>(privacy::DeviceCredentials{
      std::move(identity), std::move(certificate), std::move(authority)});
}

}  // namespace

Result<Kit> load_device_kit(const std::string& directory) {
  const fs::path path = fs::path(directory) / "client.toml";
  COVEY_ASSIGN(const KitFile file, KitFile::load(path));
  COVEY_TRY(file.check_keys({"server", "server-name", "client", "certificates.ca",
                             "certificates.certificate", "certificates.key",
                             "certificates.identity", "certificates.identity-key"}));
  COVEY_ASSIGN(Kit kit, read_kit(file, directory));
  COVEY_ASSIGN(kit.client, file.client("client"));
  COVEY_ASSIGN(const PeerIdentity identity,
               own_identity(kit.tls.certificate, PeerIdentity::Kind::kDevice, "a device"));
  if (identity.client != kit.client) {
    return invalid_argument(
        fmt::format("{}: says client {}, but {} is the certificate of client {}", path.string(),
                    value_of(kit.client), kit.tls.certificate, value_of(identity.client)));
  }
  COVEY_ASSIGN(kit.credentials, read_credentials(file, directory, kit));
  return kit;
}

Result<Kit> load_operator_kit(const std::string& directory) {
  COVEY_ASSIGN(const KitFile file, KitFile::load(fs::path(directory) / "operator.toml"));
  COVEY_TRY(file.check_keys({"server", "server-name", "certificates.ca", "certificates.certificate",
                             "certificates.key"}));
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
