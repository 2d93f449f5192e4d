#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "connection_test_support.hpp"

namespace covey::transport::testing {
namespace {

void close_and_wait(Network& network, Endpoint& client) {
  client.connection->close();
  network.run_until([&] { return client.closed && network.accepted.back()->closed; });
}

/// The session's ticket comes behind the handshake: one frame from the server is after it.
void wait_for_ticket(Network& network, Endpoint& client) {
  network.accepted.back()->connection->send(frame_of(1, 0, 1));
  network.run_until([&] { return !client.frames.empty(); });
}

}  // namespace

TEST_CASE("a second connection resumes the first one's session, with the same identity") {
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(42));
  for (std::uint64_t connections = 1; connections <= 4; ++connections) {
    Endpoint client;
    network.open(*dialer, client);
    CHECK(network.accepted.back()->connection->peer().client == ClientId{42});
    CHECK(client.connection->peer().common_name == "test server");
    CHECK(dialer->connections_resumed() == connections - 1);
    wait_for_ticket(network, client);
    close_and_wait(network, client);
  }
}

TEST_CASE("a connection that was cut leaves its session usable") {
  ConnectionLimits limits;
  limits.max_queued_bytes = 1000;
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(1), limits);
  Endpoint client;
  network.open(*dialer, client);
  wait_for_ticket(network, client);
  client.connection->send(frame_of(2000, 0, 1));  // over the limit: closed without a goodbye
  network.run_until([&] { return client.closed && network.accepted.back()->closed; });
  Endpoint again;
  network.open(*dialer, again);
  CHECK(dialer->connections_resumed() == 1);
}

TEST_CASE("sessions of a server that was restarted fall back to a full handshake") {
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  network.open(*dialer, client);
  wait_for_ticket(network, client);
  close_and_wait(network, client);

  Listener::Options options;
  options.address = network.address();
  options.tls = network.kit.server_files();
  network.listener.reset();
  Endpoint server;
  const auto restarted =
      Listener::make(network.loop, options, [&] { return server.handlers(); }).value();
  Endpoint again;
  dialer->connect(again.handlers());
  network.run_until([&] { return again.opened == 1 && server.opened == 1; });
  CHECK(dialer->connections_resumed() == 0);
}

TEST_CASE("a dialer knows who it is and refuses files that are not a device's or operator's") {
  Kit kit;
  EventLoop loop;
  const auto make = [&](const TlsFiles& files) {
    Dialer::Options options;
    options.address = "127.0.0.1:1";
    options.tls = files;
    return Dialer::make(loop, options);
  };
  const auto good = make(kit.device_files(9));
  REQUIRE(good.ok());
  CHECK((*good)->identity().client == ClientId{9});
  CHECK((*good)->identity().kind == PeerIdentity::Kind::kDevice);
  CHECK((*good)->identity().common_name == "device-9");
  Subject admin;
  admin.kind = PeerIdentity::Kind::kOperator;
  admin.common_name = "admin";
  const auto operators = make(kit.issue_files(admin));
  REQUIRE(operators.ok());
  CHECK((*operators)->identity().kind == PeerIdentity::Kind::kOperator);

  const auto expired = make(kit.device_files(9, -1));
  REQUIRE_FALSE(expired.ok());
  CHECK(contains(expired.error().message, "expired on 20"));
  const auto server = make(kit.server_files());
  REQUIRE_FALSE(server.ok());
  CHECK(contains(server.error().message, "is not meant for this use"));
  const auto missing = make({"/nowhere/ca.pem", "", "", ""});
  REQUIRE_FALSE(missing.ok());
  CHECK(contains(missing.error().message, "cannot read certificate file '/nowhere/ca.pem'"));
}

TEST_CASE("a port where nobody listens is refused in words, after connect has returned") {
  Network network;
  const std::string address = network.address();
  const auto dialer = network.dialer(network.kit.device_files(1));
  network.listener.reset();
  Endpoint client;
  dialer->connect(client.handlers());
  CHECK_FALSE(client.closed);
  network.run_until([&] { return client.closed.has_value(); });
  CHECK(client.reason() == "cannot connect to " + address + ": connection refused");
  CHECK(client.opened == 0);
}

TEST_CASE("a server that says nothing is given up when the handshake's time is over") {
  Network network;
  // The kernel completes connections to a listening socket that nobody accepts from.
  const int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::bind(silent, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(::listen(silent, 4) == 0);
  socklen_t length = sizeof(address);
  REQUIRE(::getsockname(silent, reinterpret_cast<sockaddr*>(&address), &length) == 0);

  Dialer::Options options;
  options.address = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  options.tls = network.kit.device_files(1);
  options.limits.handshake_timeout = std::chrono::milliseconds(200);
  const auto dialer = Dialer::make(network.loop, options).value();
  Endpoint client;
  dialer->connect(client.handlers());
  network.run_until([&] { return client.closed.has_value(); });
  CHECK(client.reason() == "handshake with " + options.address + " failed: no answer within 0.2 s");
  ::close(silent);
}

TEST_CASE("attempts under way end with their dialer") {
  Network network;
  auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  Endpoint open;
  network.open(*dialer, open);
  dialer->connect(client.handlers());
  dialer.reset();
  CHECK_FALSE(client.closed);
  network.run_until([&] { return client.closed.has_value(); });
  CHECK(contains(client.reason(), "this end gave up"));
  CHECK(client.opened == 0);
  CHECK(client.closings == 1);
  open.connection->send(frame_of(5, 5, 1));
  network.run_until([&] { return network.accepted[0]->frames.size() == 1; });
}

}  // namespace covey::transport::testing
