#include <atomic>
#include <covey/transport/frame.hpp>
#include <cstring>

#include "connection_raw_peer.hpp"
#include "connection_test_support.hpp"

namespace covey::transport::testing {
namespace {

std::vector<std::byte> prefix_of(std::uint32_t body, std::uint32_t header) {
  std::vector<std::byte> bytes(kFramePrefixBytes);
  write_prefix({body, header}, std::span<std::byte, kFramePrefixBytes>(bytes));
  return bytes;
}

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

/// At most ten seconds, so that a failing test ends.
void wait_for(const std::atomic<bool>& flag) {
  for (int i = 0; i < 5000 && !flag; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

/// A network, and a raw peer with a good certificate of device 1.
struct Attack {
  explicit Attack(ConnectionLimits limits = {}) : network(limits) {
    const TlsFiles files = network.kit.device_files(1);
    options.port = network.listener->port();
    options.certificate = files.certificate;
    options.key = files.key;
  }
  /// Runs `attack` against the server until the server has closed; returns its reason.
  std::string run(const std::function<void(RawPeer&)>& attack) {
    const std::size_t index = network.accepted.size();
    std::atomic<bool> done{false};
    const Background background([&] {
      RawPeer peer(options);
      attack(peer);
      peer.close();
      done = true;
    });
    network.run_until(
        [&] { return done && network.accepted.size() > index && network.accepted[index]->closed; });
    return network.accepted[index]->reason();
  }
  /// A well-behaved client is still served.
  void check_server_alive() {
    const auto dialer = network.dialer(network.kit.device_files(2));
    Endpoint client;
    network.open(*dialer, client);
    client.connection->send(frame_of(3, 3, 1));
    network.run_until([&] { return network.accepted.back()->frames.size() == 1; });
    client.connection->close();
    network.run_until([&] { return client.closed.has_value(); });
  }

  Network network;
  RawPeer::Options options;
};

}  // namespace

TEST_CASE("a frame larger than the limit closes the connection, naming both figures") {
  Attack attack;
  std::string seen;
  const std::string reason = attack.run([&](RawPeer& peer) {
    peer.handshake();
    peer.write(prefix_of((1 << 20) + 1, 10));
    seen = peer.read_to_end();
  });
  CHECK(contains(reason, "1048577"));
  CHECK(contains(reason, "1048576"));
  CHECK(seen == "closed");
  CHECK(attack.network.accepted[0]->opened == 1);
  CHECK(attack.network.accepted[0]->frames.empty());
  attack.check_server_alive();
}

TEST_CASE("a frame cut short is reported and not delivered") {
  Attack attack;
  const std::string reason = attack.run([&](RawPeer& peer) {
    peer.handshake();
    peer.write(prefix_of(1000, 10));
    peer.write(std::vector<std::byte>(400));
    peer.finish_writing();
    peer.read_to_end();
  });
  CHECK(contains(reason, "in the middle of a frame (400 of 1000 bytes)"));
  CHECK(attack.network.accepted[0]->frames.empty());
}

TEST_CASE("random bytes past TLS close the connection and tell the peer") {
  Attack attack;
  std::string seen;
  const std::string reason = attack.run([&](RawPeer& peer) {
    peer.handshake();
    peer.write_raw(pattern_bytes(600, 12345));
    seen = peer.read_to_end();
  });
  INFO(reason);
  CHECK((contains(reason, "broken TLS record") || contains(reason, "does not decrypt")));
  CHECK(seen != "timeout");
  attack.check_server_alive();
}

TEST_CASE("plain text to the port is refused in words") {
  Attack attack;
  std::string seen;
  std::string reason = attack.run([&](RawPeer& peer) {
    peer.write_raw(bytes_of("GET / HTTP/1.1\r\nHost: covey\r\n\r\n"));
    seen = peer.read_to_end();
  });
  CHECK(contains(reason, "handshake with 127.0.0.1:"));
  CHECK(contains(reason, "peer speaks plain HTTP, not TLS"));
  CHECK(seen == "cut");
  reason = attack.run([&](RawPeer& peer) {
    peer.write_raw(pattern_bytes(5000, 777));
    seen = peer.read_to_end();
  });
  CHECK(contains(reason, "peer does not speak TLS"));
  CHECK(seen == "cut");
  attack.check_server_alive();
}

TEST_CASE("a peer that says nothing is cut when the handshake's time is over") {
  ConnectionLimits limits;
  limits.handshake_timeout = std::chrono::milliseconds(300);
  Attack attack(limits);
  std::string seen;
  const std::string reason = attack.run([&](RawPeer& peer) {
    peer.write_raw(bytes_of("\x16\x03\x01"));  // half a record header of a ClientHello
    seen = peer.read_to_end();
  });
  CHECK(contains(reason, "no answer within 0.3 s"));
  CHECK(seen == "cut");
}

TEST_CASE("a peer that vanishes during the handshake is reported") {
  Attack attack;
  const std::string reason =
      attack.run([&](RawPeer& peer) { peer.write_raw(bytes_of("\x16\x03\x01\x02")); });
  CHECK(contains(reason, "peer closed the connection during the handshake"));
}

TEST_CASE("TLS 1.2 is refused") {
  Attack attack;
  attack.options.tls_version = TLS1_2_VERSION;
  bool shaken = true;
  const std::string reason = attack.run([&](RawPeer& peer) { shaken = peer.handshake(); });
  CHECK_FALSE(shaken);
  CHECK(contains(reason, "peer does not support TLS 1.3"));
}

TEST_CASE("a peer of another application protocol, or of none, is refused") {
  Attack attack;
  attack.options.protocol = "h2";
  bool shaken = true;
  std::string reason = attack.run([&](RawPeer& peer) { shaken = peer.handshake(); });
  CHECK_FALSE(shaken);
  CHECK(contains(reason, "peer does not speak covey/1"));
  attack.options.protocol = "";
  std::string seen;
  reason = attack.run([&](RawPeer& peer) {
    peer.handshake();
    seen = peer.read_to_end();
  });
  CHECK(contains(reason, "peer does not speak covey/1"));
  CHECK(seen != "timeout");
  CHECK(attack.network.accepted.back()->opened == 0);
  attack.check_server_alive();
}

TEST_CASE("a reader that never reads is cut at the queue's limit, others are served") {
  ConnectionLimits limits;
  limits.max_queued_bytes = 2 << 20;
  Attack attack(limits);
  attack.options.receive_buffer = 4096;
  Network& network = attack.network;
  std::atomic<bool> release{false};
  const Background background([&] {
    RawPeer peer(attack.options);
    peer.handshake();
    wait_for(release);
  });
  network.run_until([&] { return !network.accepted.empty() && network.accepted[0]->opened == 1; });
  Endpoint& server = *network.accepted[0];
  const SharedBytes payload(pattern_bytes(256 * 1024, 1));
  std::size_t sends = 0;
  network.run_until([&] {
    if (!server.closed) {
      server.connection->send({pattern_bytes(8, 1), payload});
      ++sends;
    }
    return server.closed.has_value();
  });
  CHECK(contains(server.reason(), "peer reads too slowly: "));
  CHECK(sends > 8);  // 2 MiB were queued before
  attack.check_server_alive();
  release = true;
}

TEST_CASE("close gives up after two seconds on a peer that reads nothing") {
  ConnectionLimits limits;
  limits.max_queued_bytes = 32 << 20;
  Attack attack(limits);
  attack.options.receive_buffer = 4096;
  Network& network = attack.network;
  std::atomic<bool> release{false};
  const Background background([&] {
    RawPeer peer(attack.options);
    peer.handshake();
    wait_for(release);
  });
  network.run_until([&] { return !network.accepted.empty() && network.accepted[0]->opened == 1; });
  Endpoint& server = *network.accepted[0];
  for (int i = 0; i < 30; ++i) server.connection->send(frame_of(10, 1000000, 1));
  const Time start = network.loop.now();
  server.connection->close();
  network.run_until([&] { return server.closed.has_value(); });
  const double waited = seconds(network.loop.now() - start);
  release = true;
  CHECK(waited >= 1.9);
  CHECK(waited < 4.0);
  CHECK(server.closings == 1);
}

}  // namespace covey::transport::testing
