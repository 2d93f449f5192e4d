#include "server/daemon/provision_kits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <covey/privacy/identity.hpp>
#include <filesystem>
#include <string_view>

#include "server/daemon/provision_authority.hpp"
#include "server/daemon/provision_files.hpp"

namespace covey::provision {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using transport::KeyAndCertificate;
using transport::PeerIdentity;
using transport::Subject;

/// An authority signs for at least ten years and always outlives what it signs now.
constexpr int kAuthorityDays = 3650;

std::string device_name(std::uint64_t client) { return fmt::format("device-{:04}", client); }

constexpr std::string_view kIdentityNames =
    "identity = \"identity.cert\"\nidentity-key = \"identity.key\"\n";

/// The TOML file of a kit. Host names and addresses were checked and need no escaping.
std::string kit_toml(const ServerPlace& place, const std::string& role,
                     std::optional<std::uint64_t> client) {
  std::string text =
      fmt::format("server = \"{}\"\nserver-name = \"{}\"\n", place.address, place.server_name());
  if (client) text += fmt::format("client = {}\n", *client);
  return text + fmt::format(
                    "\n[certificates]\nca = \"ca.pem\"\ncertificate = \"{0}.pem\"\nkey = "
                    "\"{0}.key\"\n",
                    role);
}

Result<privacy::Identity> make_identity() {
  const auto secrets = privacy::system_secrets();
  return privacy::Identity::make(*secrets);
}

/// identity.key and identity.cert of a device, into its kit.
Result<void> write_identity(Authority& authority, const fs::path& kit, ClientId client) {
  COVEY_ASSIGN(const privacy::Identity identity, make_identity());
  COVEY_ASSIGN(std::string pem, identity.to_pem());
  const WipedAtEnd wiped(pem);
  COVEY_ASSIGN(const IdentityCertificate certificate,
               authority.certify_identity(client, identity.public_key()));
  COVEY_TRY(create_file(kit / "identity.key", pem, kSecretFile));
  return create_file(kit / "identity.cert", privacy::to_text(certificate), kPublicFile);
}

/// A whole kit, in place at once: key and certificate of `subject` under `role`, a device's
/// identity, ca.pem and one more file.
Result<void> make_kit(Authority& authority, const fs::path& target, const std::string& role,
                      const Subject& subject,
                      const std::pair<std::string, std::string>& further_file) {
  // Named before the folder, because the key is what must never be lost.
  std::error_code error;
  if (fs::exists(target, error)) {
    return invalid_argument(fmt::format("{}: exists already, and a key is never overwritten",
                                        (target / (role + ".key")).string()));
  }
  COVEY_ASSIGN(NewDirectory kit, NewDirectory::make(target, kPublicDirectory));
  COVEY_ASSIGN(KeyAndCertificate issued, authority.issue(subject));
  const WipedAtEnd wiped(issued.key_pem);
  COVEY_TRY(create_file(kit.path() / (role + ".key"), issued.key_pem, kSecretFile));
  COVEY_TRY(create_file(kit.path() / (role + ".pem"), issued.certificate_pem, kPublicFile));
  COVEY_TRY(create_file(kit.path() / "ca.pem", authority.certificate_pem(), kPublicFile));
  if (subject.kind == PeerIdentity::Kind::kDevice) {
    COVEY_TRY(write_identity(authority, kit.path(), subject.client));
  }
  COVEY_TRY(create_file(kit.path() / further_file.first, further_file.second, kPublicFile));
  return kit.commit();
}

Result<Authority> open_or_create(const fs::path& directory, int valid_days) {
  std::error_code error;
  if (fs::exists(directory, error)) return Authority::open(directory);
  return Authority::create(directory, std::max(kAuthorityDays, valid_days + 1));
}

/// What the options say about the server's place, over what was said before, over the defaults.
Result<ServerPlace> choose_place(const CreateOptions& options,
                                 const std::optional<ServerPlace>& before, bool server_exists) {
  ServerPlace place = before.value_or(ServerPlace{"127.0.0.1:7443", {"127.0.0.1", "localhost"}});
  if (!options.address.empty()) place.address = options.address;
  COVEY_TRY(check_address(place.address));
  if (!options.server_names.empty()) place.server_names = options.server_names;
  const bool named =
      std::ranges::find(place.server_names, place.host()) != place.server_names.end();
  if (named) return place;
  if (server_exists && !options.address.empty()) {
    return invalid_argument(fmt::format(
        "--address {}: the server's certificate is for {}; to have another, move the server's kit "
        "away and give --server-name {}",
        place.address, fmt::join(place.server_names, ", "), place.host()));
  }
  if (!server_exists) place.server_names.push_back(place.host());
  return place;
}

Result<void> make_server_and_operator(Authority& authority, const fs::path& out,
                                      const ServerPlace& place, int valid_days) {
  std::error_code error;
  if (!fs::exists(out / "server", error)) {
    const Subject server{.kind = PeerIdentity::Kind::kServer,
                         .common_name = "server",
                         .client = {},
                         .host_names = place.server_names,
                         .valid_days = valid_days};
    COVEY_TRY(
        make_kit(authority, out / "server", "server", server, {"crl.pem", authority.crl_pem()}));
  }
  if (!fs::exists(out / "operator", error)) {
    const Subject person{.kind = PeerIdentity::Kind::kOperator,
                         .common_name = "operator",
                         .client = {},
                         .valid_days = valid_days};
    COVEY_TRY(make_kit(authority, out / "operator", "operator", person,
                       {"operator.toml", kit_toml(place, "operator", std::nullopt)}));
  }
  return {};
}

Subject device_subject(std::uint64_t client, int valid_days) {
  return {.kind = PeerIdentity::Kind::kDevice,
          .common_name = device_name(client),
          .client = ClientId{client},
          .valid_days = valid_days};
}

/// Validate everything, then change anything: none of the numbers may be taken.
Result<void> check_numbers_free(const Authority& authority, const fs::path& out,
                                std::uint64_t first, std::uint32_t devices) {
  if (devices != 0 && first > kLastClient - (devices - 1)) {
    return invalid_argument(
        fmt::format("--first-client {}: numbers end at {}", first, kLastClient));
  }
  std::error_code error;
  for (std::uint64_t client = first; client < first + devices; ++client) {
    const fs::path key = out / device_name(client) / "device.key";
    if (fs::exists(key.parent_path(), error)) {
      return invalid_argument(key.string() + ": exists already, and a key is never overwritten");
    }
    if (authority.was_issued(ClientId{client})) {
      return invalid_argument(
          fmt::format("--first-client {}: client {} has a certificate already (see {})", first,
                      client, (authority.directory() / "issued.jsonl").string()));
    }
  }
  return {};
}

}  // namespace

Result<json> create(const CreateOptions& options) {
  const fs::path out(options.out);
  std::error_code error;
  const bool server_exists = fs::exists(out / "server", error);
  if (server_exists && !options.server_names.empty()) {
    return invalid_argument(fmt::format(
        "{}: exists already, and a key is never overwritten; move the server's kit away to make "
        "one with other names",
        (out / "server" / "server.key").string()));
  }
  if (!options.address.empty()) COVEY_TRY(check_address(options.address));
  COVEY_TRY(make_directory(out, kPublicDirectory));
  COVEY_ASSIGN(Authority authority, open_or_create(out / "authority", options.valid_days));
  COVEY_ASSIGN(const ServerPlace place, choose_place(options, authority.place(), server_exists));
  const std::uint64_t first = options.first_client.value_or(authority.next_client());
  COVEY_TRY(check_numbers_free(authority, out, first, options.devices));
  COVEY_TRY(make_server_and_operator(authority, out, place, options.valid_days));
  COVEY_TRY(authority.remember(place));
  json devices = json::array();
  for (std::uint64_t client = first; client < first + options.devices; ++client) {
    const fs::path kit = out / device_name(client);
    COVEY_TRY(make_kit(authority, kit, "device", device_subject(client, options.valid_days),
                       {"client.toml", kit_toml(place, "device", client).append(kIdentityNames)}));
    devices.push_back(kit.string());
  }
  return json{{"authority", (out / "authority").string()},
              {"server", (out / "server").string()},
              {"operator", (out / "operator").string()},
              {"devices", devices},
              {"first_client", first},
              {"address", place.address},
              {"server_names", place.server_names}};
}

Result<json> request(const RequestOptions& options) {
  const fs::path out(options.out);
  std::error_code error;
  for (const char* key : {"device.key", "identity.key"}) {
    if (fs::exists(out / key, error)) {
      return invalid_argument(
          fmt::format("{}: exists already, and a key is never overwritten", (out / key).string()));
    }
  }
  COVEY_ASSIGN(transport::KeyAndRequest made, transport::make_request(options.name));
  const WipedAtEnd wiped(made.key_pem);
  COVEY_ASSIGN(const privacy::Identity identity, make_identity());
  COVEY_ASSIGN(std::string identity_pem, identity.to_pem());
  const WipedAtEnd wiped_identity(identity_pem);
  COVEY_TRY(make_directory(out, kPublicDirectory));
  COVEY_TRY(create_file(out / "device.key", made.key_pem, kSecretFile));
  COVEY_TRY(create_file(out / "identity.key", identity_pem, kSecretFile));
  COVEY_TRY(replace_file(out / "request.pem", made.request_pem + privacy::to_request_text(identity),
                         kPublicFile));
  return json{{"key", (out / "device.key").string()},
              {"identity_key", (out / "identity.key").string()},
              {"request", (out / "request.pem").string()}};
}

namespace {

/// Writes what was approved to where the options say. `identity`: none in requests of earlier
/// versions.
Result<json> write_approved(const ApproveOptions& options, const Authority& authority,
                            const std::string& certificate_pem,
                            const std::optional<IdentityCertificate>& identity) {
  json report = {{"client", options.client}, {"identity", identity.has_value()}};
  if (!options.out.empty()) {
    COVEY_TRY(replace_file(options.out, certificate_pem, kPublicFile));
    report["certificate"] = options.out;
  }
  if (!options.identity_out.empty()) {
    COVEY_TRY(replace_file(options.identity_out, privacy::to_text(*identity), kPublicFile));
    report["identity_certificate"] = options.identity_out;
  }
  if (options.kit.empty()) return report;
  const fs::path kit(options.kit);
  std::string toml = kit_toml(*authority.place(), "device", options.client);
  if (identity) toml += kIdentityNames;
  COVEY_TRY(make_directory(kit, kPublicDirectory));
  COVEY_TRY(replace_file(kit / "ca.pem", authority.certificate_pem(), kPublicFile));
  COVEY_TRY(replace_file(kit / "client.toml", toml, kPublicFile));
  if (identity) {
    COVEY_TRY(replace_file(kit / "identity.cert", privacy::to_text(*identity), kPublicFile));
  }
  COVEY_TRY(replace_file(kit / "device.pem", certificate_pem, kPublicFile));
  report["kit"] = options.kit;
  return report;
}

}  // namespace

Result<json> approve(const ApproveOptions& options) {
  if (options.client > kLastClient) {
    return invalid_argument(
        fmt::format("--client {}: numbers end at {}", options.client, kLastClient));
  }
  COVEY_ASSIGN(const std::string request_pem, read_file(options.request));
  const auto key = privacy::identity_request_from_text(request_pem);
  if (!key.ok()) return with_context(options.request, key.error());
  if (!options.identity_out.empty() && !key->has_value()) {
    return invalid_argument(fmt::format(
        "--identity-out {}: {} asks for no identity; `covey provision request` makes one that does",
        options.identity_out, options.request));
  }
  COVEY_ASSIGN(Authority authority, Authority::open(options.authority));
  if (!options.again && authority.was_issued(ClientId{options.client})) {
    return invalid_argument(fmt::format(
        "--client {}: has a certificate already; give --again if it is the same device with a new "
        "key, and revoke the old certificate",
        options.client));
  }
  if (!options.kit.empty() && !authority.place()) {
    return not_found(
        fmt::format("{}: not known where the server is; run `covey provision create` "
                    "with --address first",
                    options.authority));
  }
  auto approved =
      authority.approve(request_pem, device_subject(options.client, options.valid_days));
  if (!approved.ok()) return with_context(options.request, approved.error());
  std::optional<IdentityCertificate> identity;
  if (key->has_value()) {
    COVEY_ASSIGN(identity, authority.certify_identity(ClientId{options.client}, **key));
  }
  return write_approved(options, authority, *approved, identity);
}

Result<json> add_identity(const IdentityOptions& options) {
  const fs::path kit(options.kit);
  std::error_code error;
  for (const char* file : {"identity.key", "identity.cert"}) {
    if (fs::exists(kit / file, error)) {
      return invalid_argument(
          fmt::format("{}: exists already, and a key is never overwritten", (kit / file).string()));
    }
  }
  COVEY_ASSIGN(const std::string pem, read_file(kit / "device.pem"));
  const auto identity = transport::identity_of(pem);
  if (!identity.ok()) return with_context((kit / "device.pem").string(), identity.error());
  if (identity->kind != PeerIdentity::Kind::kDevice) {
    return invalid_argument(options.kit + ": is not the kit of a device");
  }
  COVEY_ASSIGN(const std::string trusted, read_file(kit / "ca.pem"));
  COVEY_ASSIGN(Authority authority, Authority::open(options.authority));
  if (trusted != authority.certificate_pem()) {
    return invalid_argument(
        fmt::format("{}: is a kit of another authority than {}", options.kit, options.authority));
  }
  COVEY_TRY(write_identity(authority, kit, identity->client));
  return json{{"client", value_of(identity->client)},
              {"identity", (kit / "identity.cert").string()},
              {"identity_key", (kit / "identity.key").string()}};
}

Result<json> revoke(const RevokeOptions& options) {
  std::vector<std::string> pems;
  json revoked = json::array();
  for (const auto& path : options.certificates) {
    COVEY_ASSIGN(std::string pem, read_file(path));
    auto details = transport::describe(pem);
    if (!details.ok()) return with_context(path, details.error());
    if (details->is_authority) {
      return invalid_argument(path +
                              ": is the authority's own certificate, which it cannot revoke; for a "
                              "lost authority make new kits");
    }
    revoked.push_back({{"certificate", path},
                       {"serial", details->serial},
                       {"name", details->identity.common_name}});
    pems.push_back(std::move(pem));
  }
  const fs::path server(options.server);
  std::error_code error;
  if (!fs::is_directory(server, error)) {
    return not_found(options.server + ": no such folder; give the server's kit with --server");
  }
  COVEY_ASSIGN(Authority authority, Authority::open(options.authority));
  const auto crl = authority.revoke(pems);
  if (!crl.ok()) {
    return with_context(
        fmt::format("revoking {} as {}", fmt::join(options.certificates, ", "), options.authority),
        crl.error());
  }
  COVEY_TRY(replace_file(server / "crl.pem", *crl, kPublicFile));
  return json{{"revoked", revoked}, {"crl", (server / "crl.pem").string()}};
}

Result<json> show(const std::string& certificate) {
  COVEY_ASSIGN(const std::string pem, read_file(certificate));
  if (pem.starts_with("covey identity")) {
    const auto identity = privacy::identity_certificate_from_text(pem);
    if (!identity.ok()) return with_context(certificate, identity.error());
    return json{{"certificate", certificate},
                {"kind", "identity"},
                {"client", value_of(identity->client)},
                {"key", Digest{identity->key}.hex()}};
  }
  const auto details = transport::describe(pem);
  if (!details.ok()) return with_context(certificate, details.error());
  json report = {{"certificate", certificate},      {"name", details->identity.common_name},
                 {"serial", details->serial},       {"not_before", details->not_before},
                 {"not_after", details->not_after}, {"expired", details->expired}};
  if (details->is_authority) {
    report["kind"] = "authority";
    return report;
  }
  switch (details->identity.kind) {
    case PeerIdentity::Kind::kServer:
      report["kind"] = "server";
      report["host_names"] = details->host_names;
      break;
    case PeerIdentity::Kind::kDevice:
      report["kind"] = "device";
      report["client"] = value_of(details->identity.client);
      break;
    case PeerIdentity::Kind::kOperator:
      report["kind"] = "operator";
      break;
  }
  return report;
}

}  // namespace covey::provision
