#include "server/daemon/provision_kits.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "server/daemon/kit.hpp"
#include "server/daemon/provision_files.hpp"

using namespace covey;
namespace fs = std::filesystem;

namespace {

class TemporaryFolder {
public:
  TemporaryFolder() {
    std::string pattern =
        (fs::temp_directory_path() / "covey-provision-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  std::string operator/(const std::string &name) const {
    return (path_ / name).string();
  }

private:
  fs::path path_;
};

provision::CreateOptions create_options(const TemporaryFolder &folder,
                                        std::uint32_t devices) {
  provision::CreateOptions options;
  options.out = folder / "kits";
  options.devices = devices;
  return options;
}

unsigned mode_of(const std::string &path) {
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  return found.st_mode & 0777u;
}

void replace_in_file(const std::string &path, const std::string &from,
                     const std::string &to) {
  std::string text = provision::read_file(path).value();
  text.replace(text.find(from), from.size(), to);
  std::ofstream(path) << text;
}

} // namespace

TEST_CASE(
    "provisioning makes kits that load, with keys only their owner can read") {
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
  for (const char *key : {"authority/ca.key", "server/server.key",
                          "operator/operator.key", "device-0000/device.key"}) {
    CHECK(mode_of(folder / (std::string("kits/") + key)) == 0600);
  }
}

TEST_CASE("provisioning again adds devices and changes no key there is") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 1)).ok());
  const auto before =
      provision::read_file(folder / "kits/device-0000/device.key").value();
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  CHECK(provision::read_file(folder / "kits/device-0000/device.key").value() ==
        before);
  CHECK(load_device_kit(folder / "kits/device-0002").ok());

  auto again = create_options(folder, 1);
  again.first_client = 1;
  const auto refused = provision::create(again);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("device-0001/device.key") !=
        std::string::npos);
}

TEST_CASE("a client number is not given out twice, even when its kit was "
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
    commands.emplace_back(
        [&] { (void)provision::create(create_options(folder, 3)); });
  }
  for (auto &command : commands)
    command.join();
  for (int client = 0; client < 12; ++client) {
    CHECK(load_device_kit(folder / ("kits/device-00" +
                                    std::string(client < 10 ? "0" : "") +
                                    std::to_string(client)))
              .ok());
  }
}

TEST_CASE("revoking adds to the server's list and keeps what it held") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  const auto sizes_after = [&](const std::string &device) {
    provision::RevokeOptions options{
        folder / "kits/authority",
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

TEST_CASE(
    "a kit that was tampered with is refused, naming file, line and key") {
  const TemporaryFolder folder;
  REQUIRE(provision::create(create_options(folder, 2)).ok());
  const std::string toml = folder / "kits/device-0001/client.toml";
  const auto refusal = [&] {
    return load_device_kit(folder / "kits/device-0001").error().message;
  };
  replace_in_file(toml, "client = 1", "client = 2");
  CHECK(refusal().find("is the certificate of client 1") != std::string::npos);
  replace_in_file(toml, "client = 2", "klient = 2");
  CHECK(refusal() == toml + ":3: \"klient\" is not a key of a kit");
  replace_in_file(toml, "klient = 2", "client = -1");
  CHECK(refusal() == toml + ":3: \"client\" must be a whole number from 0");
  fs::remove(folder / "kits/server/crl.pem");
  CHECK(load_server_kit(folder / "kits/server").error().code ==
        ErrorCode::kNotFound);
}
