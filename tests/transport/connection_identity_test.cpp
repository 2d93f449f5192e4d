#include <atomic>

#include "connection_raw_peer.hpp"
#include "connection_test_support.hpp"

namespace covey::transport::testing {
namespace {

/// What a raw peer with these files is told, and what the server says of it.
struct Verdict {
  std::string server;
  std::string peer;
};

Verdict present(Network& network, const TlsFiles& files, SSL_SESSION* session = nullptr) {
  RawPeer::Options options;
  options.port = network.listener->port();
  options.certificate = files.certificate;
  options.key = files.key;
  options.session = session;
  const std::size_t index = network.accepted.size();
  std::atomic<bool> done{false};
  Verdict verdict;
  const Background background([&] {
    RawPeer peer(options);
    peer.handshake();
    verdict.peer = peer.read_to_end();
    peer.close();
    done = true;
  });
  network.run_until(
      [&] { return done && network.accepted.size() > index && network.accepted[index]->closed; });
  CHECK(network.accepted[index]->opened == 0);
  verdict.server = network.accepted[index]->reason();
  return verdict;
}

}  // namespace

TEST_CASE("a peer without a certificate is refused") {
  Network network;
  const Verdict verdict = present(network, {});
  CHECK(contains(verdict.server, "handshake with 127.0.0.1:"));
  CHECK(contains(verdict.server, "failed: peer sent no certificate"));
  CHECK(verdict.peer == "certificate required");
}

TEST_CASE("a certificate of another authority is refused") {
  Network network;
  Kit other("another authority");
  Verdict verdict = present(network, other.device_files(1));
  CHECK(contains(verdict.server, "peer's certificate is signed by another authority (device-1)"));
  CHECK(verdict.peer == "unknown CA");
  Kit same_name;  // the same name, another key
  verdict = present(network, same_name.device_files(1));
  CHECK(contains(verdict.server, "peer's certificate is signed by another authority"));
}

TEST_CASE("an expired certificate is refused with its date") {
  Network network;
  const Verdict verdict = present(network, network.kit.device_files(3, -1));
  CHECK(contains(verdict.server, "peer's certificate expired on 20"));
  CHECK(contains(verdict.server, "(device-3)"));
  CHECK(verdict.peer == "certificate expired");
}

TEST_CASE("a server's certificate is refused as a client's") {
  Network network;
  const Verdict verdict = present(network, network.kit.server_files());
  CHECK(contains(verdict.server, "peer's certificate is not meant for this use"));
  CHECK(verdict.peer == "unsupported certificate");
}

TEST_CASE("a revoked device is refused from the moment the list changes, and told why") {
  Network network({}, Network::kWithRevocations);
  const TlsFiles device = network.kit.device_files(5);
  const TlsFiles other = network.kit.device_files(6);
  const auto dialer = network.dialer(device);
  const auto other_dialer = network.dialer(other);
  Endpoint before;
  network.open(*dialer, before);
  before.connection->close();
  network.run_until([&] { return before.closed.has_value(); });

  const std::string crl = network.kit.crl_path();
  network.kit.revoke_file(device.certificate);
  const Verdict verdict = present(network, device);
  CHECK(contains(verdict.server, "peer's certificate was revoked (device-5)"));
  CHECK(verdict.peer == "certificate revoked");

  // This dialer holds a session from before: resuming it must not get around the list.
  Endpoint after;
  dialer->connect(after.handlers());
  network.run_until([&] { return after.closed && network.accepted.back()->closed; });
  CHECK(contains(after.reason(), "server refused our certificate: certificate revoked"));
  CHECK(network.accepted.back()->opened == 0);

  Endpoint unaffected;
  network.open(*other_dialer, unaffected);
  CHECK(network.accepted.back()->connection->peer().client == ClientId{6});
}

TEST_CASE("a broken or missing revocation list changes nothing, the next good one counts") {
  Network network({}, Network::kWithRevocations);
  const TlsFiles first = network.kit.device_files(1);
  const TlsFiles second = network.kit.device_files(2);
  const std::string crl = network.kit.crl_path();
  network.kit.revoke_file(first.certificate);
  CHECK(contains(present(network, first).server, "was revoked"));

  const std::string good = read_text(crl);
  network.kit.files().write("crl.pem", good.substr(0, good.size() / 2));
  CHECK(contains(present(network, first).server, "was revoked"));
  std::filesystem::remove(crl);
  CHECK(contains(present(network, first).server, "was revoked"));
  Kit other("another authority");
  network.kit.files().write("crl.pem", read_text(other.empty_crl()));
  CHECK(contains(present(network, first).server, "was revoked"));

  network.kit.revoke_file(second.certificate);
  CHECK(contains(present(network, second).server, "was revoked"));
}

TEST_CASE("a server of another authority is refused, and hears so") {
  Network network;
  Kit other("another authority");
  const auto stranger = network.dialer(other.device_files(1));
  Endpoint client;
  stranger->connect(client.handlers());
  network.run_until([&] { return client.closed && network.accepted[0]->closed; });
  CHECK(contains(client.reason(), "peer's certificate is signed by another authority"));
  CHECK(client.opened == 0);
  CHECK(contains(network.accepted[0]->reason(),
                 "client refused our certificate: certificate signed by another authority"));
}

TEST_CASE("the server must be the one that was named") {
  Network network;
  const TlsFiles files = network.kit.device_files(1);
  const auto refuse = [&](const std::string& name) {
    const auto dialer = network.dialer(files, {}, name);
    Endpoint client;
    dialer->connect(client.handlers());
    network.run_until([&] { return client.closed.has_value(); });
    CHECK(client.opened == 0);
    return client.reason();
  };
  CHECK(contains(refuse("other.example"),
                 "peer's certificate is not for 'other.example' (test server)"));
  CHECK(contains(refuse("127.0.0.2"), "peer's certificate is not for '127.0.0.2'"));
  CHECK(contains(refuse("test server"), "peer's certificate is not for 'test server'"));
  for (const char* name : {"localhost", "127.0.0.1", "::1", ""}) {
    const auto dialer = network.dialer(files, {}, name);
    Endpoint client;
    network.open(*dialer, client);
    CHECK(client.connection->peer().common_name == "test server");
  }
}

}  // namespace covey::transport::testing
