#include <unistd.h>

#include <covey/random.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "connection_test_support.hpp"

namespace covey::transport::testing {

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "covey-transport-XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryDirectory::write(const std::string& name, const std::string& text) const {
  const std::filesystem::path path = path_ / name;
  // By rename, as a careful operator's tool would: a reader sees the old text or the new.
  const std::filesystem::path fresh = path_ / (name + ".new");
  std::ofstream(fresh, std::ios::binary) << text;
  std::filesystem::rename(fresh, path);
  return path.string();
}

std::string read_text(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

Kit::Kit(const std::string& authority_name) {
  authority_ = make_authority(authority_name, 3650).value();
  files_.write("ca.pem", authority_.certificate_pem);
}

TlsFiles Kit::issue_files(const Subject& subject, const std::string& crl) {
  const KeyAndCertificate made = issue(authority_, subject).value();
  const std::string name = std::to_string(++issued_);
  return {files_.write("ca.pem", authority_.certificate_pem),
          files_.write(name + ".pem", made.certificate_pem),
          files_.write(name + ".key", made.key_pem), crl};
}

TlsFiles Kit::server_files(const std::string& crl) {
  Subject subject;
  subject.kind = PeerIdentity::Kind::kServer;
  subject.common_name = "test server";
  subject.host_names = {"127.0.0.1", "::1", "localhost"};
  return issue_files(subject, crl);
}

TlsFiles Kit::device_files(std::uint64_t client, int valid_days) {
  Subject subject;
  subject.common_name = "device-" + std::to_string(client);
  subject.client = ClientId{client};
  subject.valid_days = valid_days;
  return issue_files(subject);
}

std::string Kit::empty_crl() {
  crl_pem_ = revoke(authority_, "", {}).value();
  crl_path_ = files_.write("crl.pem", crl_pem_);
  return crl_path_;
}

void Kit::revoke_file(const std::string& certificate_file) {
  crl_pem_ = revoke(authority_, crl_pem_, {read_text(certificate_file)}).value();
  files_.write("crl.pem", crl_pem_);
}

ConnectionHandlers Endpoint::handlers() {
  ConnectionHandlers result;
  result.on_open = [this](std::shared_ptr<Connection> open) {
    ++opened;
    connection = std::move(open);
    if (when_open) when_open();
  };
  result.on_frame = [this](std::span<const std::byte> header, SharedBytes payload) {
    CHECK(closings == 0);
    frames.push_back({{header.begin(), header.end()}, std::move(payload)});
    if (when_frame) when_frame(frames.back());
  };
  result.on_closed = [this](const Error& reason) {
    ++closings;
    closed = reason;
  };
  return result;
}

Network::Network(ConnectionLimits limits, Revocations revocations) {
  Listener::Options options;
  options.address = "127.0.0.1:0";
  options.limits = limits;
  options.tls = kit.server_files(revocations == kWithRevocations ? kit.empty_crl() : "");
  auto made = Listener::make(loop, options, [this] {
    accepted.push_back(std::make_unique<Endpoint>());
    if (when_accepted) when_accepted(*accepted.back());
    return accepted.back()->handlers();
  });
  INFO((made.ok() ? "" : made.error().message));
  REQUIRE(made.ok());
  listener = std::move(*made);
}

void Network::run_until(const std::function<bool()>& done) {
  const Time give_up = loop.now() + std::chrono::seconds(10);
  bool late = false;
  std::function<void()> look;
  Timer timer(loop, [&look] { look(); });
  look = [&] {
    late = loop.now() > give_up;
    if (late || done()) return loop.stop();
    timer.set(loop.now() + std::chrono::milliseconds(1));
  };
  timer.set(loop.now());
  loop.run();
  REQUIRE_FALSE(late);
}

void Network::run_for(Duration duration) {
  const Time end = loop.now() + duration;
  run_until([this, end] { return loop.now() >= end; });
}

std::unique_ptr<Dialer> Network::dialer(const TlsFiles& files, ConnectionLimits limits,
                                        const std::string& server_name) {
  Dialer::Options options;
  options.address = address();
  options.server_name = server_name;
  options.tls = files;
  options.limits = limits;
  auto made = Dialer::make(loop, options);
  INFO((made.ok() ? "" : made.error().message));
  REQUIRE(made.ok());
  return std::move(*made);
}

void Network::open(Dialer& with, Endpoint& client) {
  const std::size_t before = accepted.size();
  with.connect(client.handlers());
  run_until([&] {
    return client.opened == 1 && accepted.size() > before && accepted.back()->opened == 1;
  });
}

std::vector<std::byte> pattern_bytes(std::size_t size, std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next_u32() & 0xff);
  return bytes;
}

proto::Encoded frame_of(std::size_t header_bytes, std::size_t payload_bytes, std::uint64_t seed) {
  proto::Encoded frame;
  frame.header = pattern_bytes(header_bytes, seed);
  if (payload_bytes > 0) frame.payload = SharedBytes(pattern_bytes(payload_bytes, seed + 1));
  return frame;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace covey::transport::testing
