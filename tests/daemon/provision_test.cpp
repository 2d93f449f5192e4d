#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "server/daemon/kit.hpp"
#include "server/daemon/provision_files.hpp"
#include "server/daemon/provision_kits.hpp"

using namespace covey;
namespace fs = std::filesystem;

namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "covey-provision-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

provision::CreateOptions create_options(const TemporaryFolder& folder, std::uint32_t devices) {
  provision::CreateOptions options;
  options.out = folder / "kits";
  options.devices = devices;
  return options;
}

unsigned mode_of(const std::string& path) {
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  return found.st_mode & 0777u;
}

void replace_in_file(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = provision::read_file(path).value();
  text.replace(text.find(from), from.size(), to);
  std::ofstream(path) << text;
}

}  // namespace

TEST_CASE("provisioning makes kits that load, with keys only their owner can read") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  const auto device = load_device_kit(folder / "kits/device-0001");
  REQUIRE(device.ok());
  CHECK(device->client == ClientId{1});
  CHECK(device->address == "127.0.0.1:7443");
  CHECK(device->server_name == "127.0.0.1");
  CHECK(load_operator_kit(folder / "kits/operator").ok());
  CHECK(load_server_kit(folder / "kits/server").ok());
  CHECK(mode_of(folder / "kits/authority") == 0700);
  for (const char* key : {"authority/ca.key", "server/server.key", "operator/operator.key",
                          "device-0000/device.key"}) {
    CHECK(mode_of(folder / (std::string("kits/") + key)) == 0600);
  }
}

TEST_CASE("provisioning again adds devices and changes no key there is") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  const auto before = provision::read_file(folder / "kits/device-0000/device.key").value();
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  CHECK(provision::read_file(folder / "kits/device-0000/device.key").value() == before);
  CHECK(load_device_kit(folder / "kits/device-0002").ok());

  auto again = create_options(folder, 1);
  again.first_client = 1;
  const auto refused = provision::create(again);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("device-0001/device.key") != std::string::npos);
}

TEST_CASE(
    "a client number is not given out twice, even when its kit was "
    "carried away") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  fs::remove_all(folder / "kits/device-0001");
  const auto more = provision::create(create_options(folder, 1));
  REQUIRE(more.ok());
  CHECK((*more)["first_client"] == 2);
  REQUIRE(provision::request({folder / "device", "ward 7"}).ok());
  provision::ApproveOptions approve;
  approve.authority = folder / "kits/authority";
  approve.request = folder / "device/request.pem";
  approve.client = 1;
  approve.kit = folder / "device";
  CHECK_FALSE(provision::approve(approve).ok());
  approve.again = true;
  CHECK(provision::approve(approve).ok());
  CHECK(load_device_kit(folder / "device")->client == ClientId{1});
}

TEST_CASE("commands at the same time give out different numbers") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 0)).ok());
  std::vector<std::thread> commands;
  for (int i = 0; i < 4; ++i) {
    commands.emplace_back([&] { (void)provision::create(create_options(folder, 3)); });
  }
  for (auto& command : commands) command.join();
  for (int client = 0; client < 12; ++client) {
    CHECK(load_device_kit(folder / ("kits/device-00" + std::string(client < 10 ? "0" : "") +
                                    std::to_string(client)))
              .ok());
  }
}

TEST_CASE("revoking adds to the server's list and keeps what it held") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  const auto sizes_after = [&](const std::string& device) {
    provision::RevokeOptions options{folder / "kits/authority",
                                     folder / "kits/server",
                                     {folder / ("kits/" + device + "/device.pem")}};
    REQUIRE(provision::revoke(options).ok());
    return fs::file_size(folder / "kits/server/crl.pem");
  };
  const auto empty = fs::file_size(folder / "kits/server/crl.pem");
  const auto one = sizes_after("device-0000");
  const auto two = sizes_after("device-0001");
  CHECK(one > empty);
  CHECK(two > one);
  CHECK(provision::read_file(folder / "kits/server/crl.pem").value() ==
        provision::read_file(folder / "kits/authority/crl.pem").value());
}

TEST_CASE("a kit that was tampered with is refused, naming file, line and key") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  const std::string toml = folder / "kits/device-0001/client.toml";
  const auto refusal = [&] { return load_device_kit(folder / "kits/device-0001").error().message; };
  replace_in_file(toml, "client = 1", "client = 2");
  CHECK(refusal().find("is the certificate of client 1") != std::string::npos);
  replace_in_file(toml, "client = 2", "klient = 2");
  CHECK(refusal() == toml + ":3: \"klient\" is not a key of a kit");
  replace_in_file(toml, "klient = 2", "client = -1");
  CHECK(refusal() == toml + ":3: \"client\" must be a whole number from 0");
  fs::remove(folder / "kits/server/crl.pem");
  CHECK(load_server_kit(folder / "kits/server").error().code == ErrorCode::kNotFound);
}

TEST_CASE("a device's kit has an identity that the run's authority certified") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  const auto kit = load_device_kit(folder / "kits/device-0001");
  const auto other = load_device_kit(folder / "kits/device-0000");
  REQUIRE((kit.ok() && other.ok()));
  REQUIRE((kit->credentials && other->credentials));
  const auto& certificate = kit->credentials->certificate;
  CHECK(certificate.client == ClientId{1});
  CHECK(certificate.key == kit->credentials->identity.public_key());
  CHECK(other->credentials->authority.check(certificate).ok());
  CHECK(mode_of(folder / "kits/device-0001/identity.key") == 0600);
  const auto shown = provision::show(folder / "kits/device-0001/identity.cert");
  REQUIRE(shown.ok());
  CHECK((*shown)["kind"] == "identity");
  CHECK((*shown)["client"] == 1);
  CHECK((*shown)["key"] == Digest{certificate.key}.hex());
  const auto ledger = provision::read_file(folder / "kits/authority/issued.jsonl").value();
  CHECK(ledger.find(Digest{certificate.key}.hex()) != std::string::npos);
  CHECK_FALSE(fs::exists(folder / "kits/server/identity.key"));
  CHECK_FALSE(fs::exists(folder / "kits/operator/identity.key"));
}

TEST_CASE("a kit from before identities loads without one, and can be given one") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  const std::string path = folder / "kits/device-0000";
  fs::remove(path + "/identity.key");
  fs::remove(path + "/identity.cert");
  replace_in_file(path + "/client.toml",
                  "identity = \"identity.cert\"\nidentity-key = \"identity.key\"\n", "");
  const auto before = load_device_kit(path);
  REQUIRE(before.ok());
  CHECK_FALSE(before->credentials);

  REQUIRE(provision::add_identity({folder / "kits/authority", path}).ok());
  const auto after = load_device_kit(path);
  REQUIRE(after.ok());
  REQUIRE(after->credentials);
  CHECK(after->credentials->certificate.client == ClientId{0});
  CHECK(mode_of(path + "/identity.key") == 0600);

  const auto again = provision::add_identity({folder / "kits/authority", path});
  REQUIRE_FALSE(again.ok());
  CHECK(again.error().message ==
        path + "/identity.key: exists already, and a key is never overwritten");
}

TEST_CASE("an identity is not given to a kit of another authority or of no device") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  auto theirs = create_options(folder, 1);
  theirs.out = folder / "other";
  REQUIRE(provision::create(theirs).ok());
  for (const char* file : {"identity.key", "identity.cert"}) {
    fs::remove(folder / ("other/device-0000/" + std::string(file)));
  }
  const auto other =
      provision::add_identity({folder / "kits/authority", folder / "other/device-0000"});
  REQUIRE_FALSE(other.ok());
  CHECK(other.error().message.find("is a kit of another authority") != std::string::npos);
  CHECK_FALSE(fs::exists(folder / "other/device-0000/identity.key"));
  CHECK_FALSE(provision::add_identity({folder / "kits/authority", folder / "kits/server"}).ok());
}

TEST_CASE("a request carries the identity's key, and its approval certifies both") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  const auto requested = provision::request({folder / "device", "ward 7"});
  REQUIRE(requested.ok());
  CHECK(mode_of(folder / "device/identity.key") == 0600);
  provision::ApproveOptions approve;
  approve.authority = folder / "kits/authority";
  approve.request = folder / "device/request.pem";
  approve.client = 5;
  approve.kit = folder / "device";
  approve.identity_out = folder / "identity-alone.cert";
  const auto approved = provision::approve(approve);
  REQUIRE(approved.ok());
  CHECK((*approved)["identity"] == true);
  const auto kit = load_device_kit(folder / "device");
  REQUIRE(kit.ok());
  REQUIRE(kit->credentials);
  CHECK(kit->credentials->certificate.client == ClientId{5});
  CHECK(provision::read_file(approve.identity_out).value() ==
        provision::read_file(folder / "device/identity.cert").value());

  CHECK_FALSE(
      provision::request({folder / "device", "ward 7"}).ok());  // keys are never overwritten
}

TEST_CASE("a request without an identity is approved without, and says so") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  REQUIRE(provision::request({folder / "device", "ward 7"}).ok());
  fs::remove(folder / "device/identity.key");
  const std::string path = folder / "device/request.pem";
  std::string text = provision::read_file(path).value();
  std::ofstream(path) << text.substr(0, text.find("covey identity"));
  provision::ApproveOptions approve;
  approve.authority = folder / "kits/authority";
  approve.request = path;
  approve.client = 5;
  approve.kit = folder / "device";
  approve.identity_out = folder / "identity.cert";
  const auto refused = provision::approve(approve);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("asks for no identity") != std::string::npos);
  approve.identity_out.clear();
  const auto approved = provision::approve(approve);
  REQUIRE(approved.ok());
  CHECK((*approved)["identity"] == false);
  const auto kit = load_device_kit(folder / "device");
  REQUIRE(kit.ok());
  CHECK_FALSE(kit->credentials);
}

TEST_CASE("a request whose identity is not the sender's own is refused before a number is used") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  REQUIRE(provision::request({folder / "device", "ward 7"}).ok());
  const std::string path = folder / "device/request.pem";
  // Another device's public key before this one's signature.
  const auto victim = load_device_kit(folder / "kits/device-0000");
  REQUIRE(victim.ok());
  std::string text = provision::read_file(path).value();
  text.replace(text.find("\nkey ") + 5, 64, Digest{victim->credentials->certificate.key}.hex());
  std::ofstream(path) << text;
  const auto ledger = provision::read_file(folder / "kits/authority/issued.jsonl").value();
  provision::ApproveOptions approve;
  approve.authority = folder / "kits/authority";
  approve.request = path;
  approve.client = 5;
  approve.kit = folder / "device";
  const auto refused = provision::approve(approve);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message ==
        path + ": the request for an identity is not signed by its own key");
  CHECK(provision::read_file(folder / "kits/authority/issued.jsonl").value() == ledger);
}

TEST_CASE("a kit whose identity is not its own is refused, naming the file") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  auto theirs = create_options(folder, 1);
  theirs.out = folder / "other";
  REQUIRE(provision::create(theirs).ok());
  const std::string kit = folder / "kits/device-0000";
  const auto put = [&](const std::string& from, const std::string& file) {
    fs::copy_file(folder / (from + file), kit + "/" + file, fs::copy_options::overwrite_existing);
  };
  const auto refusal = [&] {
    const auto loaded = load_device_kit(kit);
    REQUIRE_FALSE(loaded.ok());
    return loaded.error().message;
  };
  fs::copy(kit, folder / "good");
  put("kits/device-0001/", "identity.cert");
  CHECK(refusal() ==
        kit + "/identity.cert: is the identity of client 1, but the kit is client 0's");
  put("other/device-0000/", "identity.cert");
  CHECK(refusal() == kit + "/identity.cert: is not of the key in " + kit + "/identity.key");
  put("other/device-0000/", "identity.key");
  CHECK(refusal() ==
        kit + "/identity.cert: the identity of client 0 is not certified by the run's authority");
  put("good/", "identity.cert");
  put("good/", "device.key");
  fs::copy_file(kit + "/device.key", kit + "/identity.key", fs::copy_options::overwrite_existing);
  CHECK(refusal() == kit + "/identity.key: the key of a device's identity must be of Ed25519");
  std::ofstream(kit + "/identity.cert") << "";
  CHECK(refusal().find(kit + "/identity.cert: not a device's identity certificate") == 0);
  fs::remove(kit + "/identity.cert");
  CHECK(refusal().find(kit + "/identity.cert: no such file") == 0);
  replace_in_file(kit + "/client.toml", "identity = \"identity.cert\"\n", "");
  CHECK(refusal() == kit + "/client.toml: the key \"certificates.identity\" is missing");
}
