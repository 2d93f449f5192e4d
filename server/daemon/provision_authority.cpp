#include "server/daemon/provision_authority.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <covey/privacy/identity.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

namespace covey::provision {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using transport::PeerIdentity;

/// The folder that the lock is on: the one around the authority, with all kits in it.
fs::path folder_around(const fs::path& directory) {
  std::error_code error;
  const fs::path absolute = fs::absolute(directory, error).lexically_normal();
  return absolute.has_filename() ? absolute.parent_path() : absolute.parent_path().parent_path();
}

std::string kind_name(PeerIdentity::Kind kind) {
  switch (kind) {
    case PeerIdentity::Kind::kServer:
      return "server";
    case PeerIdentity::Kind::kDevice:
      return "device";
    case PeerIdentity::Kind::kOperator:
      return "operator";
  }
  return "unknown";
}

}  // namespace

Result<void> check_address(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  const std::string host = colon == std::string::npos ? "" : address.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  int port = 0;
  const char* end = address.data() + address.size();
  const auto parsed = colon == std::string::npos
                          ? std::from_chars_result{end, std::errc::invalid_argument}
                          : std::from_chars(address.data() + colon + 1, end, port);
  if (host.empty() || (!bracketed && host.find(':') != std::string::npos) ||
      parsed.ec != std::errc() || parsed.ptr != end || port < 1 || port > 65535) {
    return invalid_argument(fmt::format(
        "--address {}: must be host:port with a port from 1 to 65535, as in 127.0.0.1:7443 or "
        "[::1]:7443",
        address));
  }
  return {};
}

std::string ServerPlace::host() const {
  std::string host = address.substr(0, address.rfind(':'));
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  return host;
}

const std::string& ServerPlace::server_name() const {
  const auto found = std::ranges::find(server_names, host());
  return found != server_names.end() ? *found : server_names.front();
}

Authority::~Authority() { WipedAtEnd wiped(signer_.key_pem); }

Result<Authority> Authority::open(const fs::path& directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    return not_found(
        fmt::format("{}: no certificate authority here; `covey provision create` makes one",
                    directory.string()));
  }
  COVEY_ASSIGN(DirectoryLock lock, DirectoryLock::take(folder_around(directory)));
  Authority authority(directory, std::move(lock));
  COVEY_ASSIGN(authority.signer_.certificate_pem, read_file(directory / "ca.pem"));
  COVEY_ASSIGN(authority.signer_.key_pem, read_file(directory / kKeyFile));
  COVEY_ASSIGN(authority.crl_pem_, read_file(directory / "crl.pem"));
  COVEY_TRY(authority.load_ledger());
  COVEY_TRY(authority.load_place());
  return authority;
}

Result<Authority> Authority::create(const fs::path& directory, int valid_days) {
  const fs::path around = folder_around(directory);
  COVEY_TRY(make_directory(around, kPublicDirectory));
  COVEY_ASSIGN(DirectoryLock lock, DirectoryLock::take(around));
  COVEY_ASSIGN(NewDirectory folder, NewDirectory::make(directory, kSecretDirectory));
  Authority authority(directory, std::move(lock));
  COVEY_ASSIGN(authority.signer_, transport::make_authority("Covey authority", valid_days));
  COVEY_ASSIGN(authority.crl_pem_, transport::revoke(authority.signer_, "", {}));
  const auto& signer = authority.signer_;
  COVEY_TRY(create_file(folder.path() / kKeyFile, signer.key_pem, kSecretFile));
  COVEY_TRY(create_file(folder.path() / "ca.pem", signer.certificate_pem, kPublicFile));
  COVEY_TRY(create_file(folder.path() / "crl.pem", authority.crl_pem_, kPublicFile));
  COVEY_TRY(create_file(folder.path() / "issued.jsonl", "", kPublicFile));
  COVEY_TRY(folder.commit());
  return authority;
}

Result<void> Authority::load_ledger() {
  const fs::path path = directory_ / "issued.jsonl";
  COVEY_ASSIGN(const std::string text, read_file(path));
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const json entry = json::parse(line, nullptr, false);
    if (!entry.is_object()) {
      return malformed(fmt::format("{}:{}: not a JSON object", path.string(), number));
    }
    const auto client = entry.find("client");
    if (client != entry.end() && client->is_number_unsigned()) {
      issued_clients_.push_back(client->get<std::uint64_t>());
    }
  }
  return {};
}

Result<void> Authority::load_place() {
  const fs::path path = directory_ / "server.json";
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  COVEY_ASSIGN(const std::string text, read_file(path));
  const json stored = json::parse(text, nullptr, false);
  const auto bad = malformed(path.string() + ": must have \"address\" and \"server-names\"");
  if (!stored.is_object() || !stored.contains("address") || !stored["address"].is_string() ||
      !stored.contains("server-names") || !stored["server-names"].is_array() ||
      stored["server-names"].empty()) {
    return bad;
  }
  ServerPlace place{stored["address"].get<std::string>(), {}};
  for (const auto& name : stored["server-names"]) {
    if (!name.is_string()) return bad;
    place.server_names.push_back(name.get<std::string>());
  }
  COVEY_TRY(check_address(place.address));
  place_ = std::move(place);
  return {};
}

Result<void> Authority::remember(const ServerPlace& place) {
  const json stored = {{"address", place.address}, {"server-names", place.server_names}};
  COVEY_TRY(replace_file(directory_ / "server.json", stored.dump() + "\n", kPublicFile));
  place_ = place;
  return {};
}

Result<void> Authority::enter(const std::string& certificate_pem) {
  COVEY_ASSIGN(const auto details, transport::describe(certificate_pem));
  json entry = {{"serial", details.serial},
                {"kind", kind_name(details.identity.kind)},
                {"name", details.identity.common_name},
                {"not_after", details.not_after}};
  if (details.identity.kind == PeerIdentity::Kind::kDevice) {
    entry["client"] = value_of(details.identity.client);
    issued_clients_.push_back(value_of(details.identity.client));
  }
  return append_line(directory_ / "issued.jsonl", entry.dump());
}

Result<transport::KeyAndCertificate> Authority::issue(const transport::Subject& subject) {
  COVEY_ASSIGN(transport::KeyAndCertificate issued, transport::issue(signer_, subject));
  COVEY_TRY(enter(issued.certificate_pem));
  return issued;
}

Result<std::string> Authority::approve(const std::string& request_pem,
                                       const transport::Subject& subject) {
  COVEY_ASSIGN(std::string pem, transport::sign_request(signer_, request_pem, subject));
  COVEY_TRY(enter(pem));
  return pem;
}

Result<IdentityCertificate> Authority::certify_identity(ClientId client, const PublicKey& key) {
  auto certificate = privacy::certify(signer_.key_pem, client, key);
  if (!certificate.ok()) return with_context(directory_.string(), certificate.error());
  const json entry = {
      {"kind", "identity"}, {"client", value_of(client)}, {"key", Digest{key}.hex()}};
  COVEY_TRY(append_line(directory_ / "issued.jsonl", entry.dump()));
  return certificate;
}

Result<std::string> Authority::revoke(const std::vector<std::string>& certificate_pems) {
  COVEY_ASSIGN(crl_pem_, transport::revoke(signer_, crl_pem_, certificate_pems));
  COVEY_TRY(replace_file(directory_ / "crl.pem", crl_pem_, kPublicFile));
  return crl_pem_;
}

bool Authority::was_issued(ClientId client) const {
  return std::ranges::find(issued_clients_, value_of(client)) != issued_clients_.end();
}

std::uint64_t Authority::next_client() const {
  if (issued_clients_.empty()) return 0;
  return *std::ranges::max_element(issued_clients_) + 1;
}

}  // namespace covey::provision
