#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "connection_raw_peer.hpp"
#include "connection_test_support.hpp"

namespace covey::transport::testing {
namespace {

Listener::Options options_for(const std::string& address, const TlsFiles& files) {
  Listener::Options options;
  options.address = address;
  options.tls = files;
  return options;
}

std::string refusal(EventLoop& loop, const Listener::Options& options) {
  const auto made = Listener::make(loop, options, [] { return ConnectionHandlers{}; });
  return made.ok() ? "(accepted)" : made.error().message;
}

}  // namespace

TEST_CASE("an address in use, malformed or unknown is refused in words") {
  Network network;
  const TlsFiles files = network.kit.server_files();
  CHECK(refusal(network.loop, options_for(network.address(), files)) ==
        "cannot listen on " + network.address() + ": address already in use");
  for (const char* address : {"", "7443", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "::1:7443",
                              "127.0.0.1:65536", ":7443", "127.0.0.1:-1", "127.0.0.1:7443 "}) {
    CAPTURE(address);
    const auto made = Listener::make(network.loop, options_for(address, files),
                                     [] { return ConnectionHandlers{}; });
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == ErrorCode::kInvalidArgument);
    CHECK(
        contains(made.error().message, std::string("address '") + address + "' is not host:port"));
  }
  CHECK(contains(refusal(network.loop, options_for("192.0.2.1:0", files)),
                 "cannot listen on 192.0.2.1:0: cannot assign requested address"));
}

TEST_CASE("files that do not fit are refused, naming them") {
  Kit kit;
  Kit other("another authority");
  EventLoop loop;
  const TlsFiles good = kit.server_files();
  const auto with = [&](auto change) {
    TlsFiles files = good;
    change(files);
    return refusal(loop, options_for("127.0.0.1:0", files));
  };
  CHECK(with([](TlsFiles&) {}) == "(accepted)");
  CHECK(with([](TlsFiles& files) { files.ca = "/nowhere/ca.pem"; }) ==
        "cannot read certificate file '/nowhere/ca.pem': no such file or directory");
  CHECK(with([](TlsFiles& files) { files.key = "/nowhere/key.pem"; }) ==
        "cannot read private key '/nowhere/key.pem': no such file or directory");
  const std::string other_key = kit.device_files(1).key;
  CHECK(with([&](TlsFiles& files) { files.key = other_key; }) ==
        "key '" + other_key + "' does not fit certificate '" + good.certificate + "'");
  CHECK(contains(with([&](TlsFiles& files) { files.key = files.certificate; }),
                 "holds no private key that can be read"));
  CHECK(contains(with([&](TlsFiles& files) { files.ca = other.server_files().ca; }),
                 "is signed by another authority (test server)"));
  CHECK(contains(with([&](TlsFiles& files) { files = kit.device_files(4); }),
                 "is not meant for this use"));
  CHECK(contains(with([&](TlsFiles& files) { files.crl = files.certificate; }),
                 "holds no PEM block of that kind"));
  CHECK(contains(with([&](TlsFiles& files) { files.crl = other.empty_crl(); }),
                 "is not signed by the run's authority"));
  Subject expired;
  expired.kind = PeerIdentity::Kind::kServer;
  expired.common_name = "old server";
  expired.host_names = {"127.0.0.1"};
  expired.valid_days = -1;
  CHECK(
      contains(with([&](TlsFiles& files) { files = kit.issue_files(expired); }), "expired on 20"));
}

TEST_CASE("two hundred devices at once are served and told apart") {
  Network network;
  constexpr std::size_t kDevices = 200;
  const TlsFiles files[] = {network.kit.device_files(1), network.kit.device_files(2)};
  const auto one = network.dialer(files[0]);
  const auto two = network.dialer(files[1]);
  network.when_accepted = [](Endpoint& endpoint) {
    endpoint.when_frame = [&endpoint](const Endpoint::Frame& frame) {
      proto::Encoded answer{frame.header, frame.payload};
      answer.header.push_back(static_cast<std::byte>(value_of(endpoint.connection->peer().client)));
      endpoint.connection->send(std::move(answer));
    };
  };
  std::vector<std::unique_ptr<Endpoint>> clients;
  for (std::size_t i = 0; i < kDevices; ++i) {
    clients.push_back(std::make_unique<Endpoint>());
    Endpoint& client = *clients.back();
    client.when_open = [&client, i] { client.connection->send(frame_of(16, 1000, i)); };
    (i % 2 == 0 ? *one : *two).connect(client.handlers());
  }
  network.run_until([&] {
    return std::all_of(clients.begin(), clients.end(),
                       [](const auto& client) { return client->frames.size() == 1; });
  });
  CHECK(network.listener->connections() == kDevices);
  bool right = true;
  for (std::size_t i = 0; i < kDevices; ++i) {
    std::vector<std::byte> expected = pattern_bytes(16, i);
    expected.push_back(static_cast<std::byte>(i % 2 + 1));
    right = right && clients[i]->frames[0].header == expected;
  }
  CHECK(right);
  for (const auto& client : clients) client->connection->close();
  network.run_until([&] { return network.listener->connections() == 0; });
}

TEST_CASE("connections beyond the limit are closed at once, and a free place is used again") {
  Network network;
  Listener::Options options = options_for("127.0.0.1:0", network.kit.server_files());
  options.max_connections = 1;
  std::vector<std::unique_ptr<Endpoint>> accepted;
  const auto listener = Listener::make(network.loop, options, [&] {
                          accepted.push_back(std::make_unique<Endpoint>());
                          return accepted.back()->handlers();
                        }).value();
  Dialer::Options dial;
  dial.address = "127.0.0.1:" + std::to_string(listener->port());
  dial.tls = network.kit.device_files(1);
  const auto dialer = Dialer::make(network.loop, dial).value();
  Endpoint first, second, third;
  dialer->connect(first.handlers());
  network.run_until([&] { return first.opened == 1; });
  dialer->connect(second.handlers());
  network.run_until([&] { return second.closed.has_value(); });
  CHECK(second.opened == 0);
  REQUIRE(accepted.size() == 2);  // told of, but never opened
  CHECK(accepted[1]->opened == 0);
  CHECK(accepted[1]->closed);
  CHECK_FALSE(first.closed);
  first.connection->close();
  network.run_until([&] { return listener->connections() == 0; });
  dialer->connect(third.handlers());
  network.run_until([&] { return third.opened == 1; });
}

TEST_CASE("open connections outlive the listener, handshakes do not") {
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  network.open(*dialer, client);
  RawPeer::Options options;
  options.port = network.listener->port();
  RawPeer silent(options);  // connects, and never says a word
  network.run_until([&] { return network.accepted.size() == 2; });

  network.listener.reset();
  network.run_until([&] { return network.accepted[1]->closed.has_value(); });
  CHECK(contains(network.accepted[1]->reason(), "this end stopped listening"));
  client.connection->send(frame_of(5, 5, 1));
  network.run_until([&] { return network.accepted[0]->frames.size() == 1; });

  Endpoint late;
  dialer->connect(late.handlers());
  network.run_until([&] { return late.closed.has_value(); });
  CHECK(contains(late.reason(), "cannot connect to 127.0.0.1:"));
  CHECK(contains(late.reason(), ": connection refused"));
  client.connection->close();
  network.run_until([&] { return client.closed && network.accepted[0]->closed; });
}

TEST_CASE("a listener and its connections may go with the loop, unclosed") {
  Endpoint client;
  {
    Network network;
    const auto dialer = network.dialer(network.kit.device_files(1));
    network.open(*dialer, client);
    client.connection->send(frame_of(5, 50000, 1));
    client.connection.reset();
    for (auto& endpoint : network.accepted) endpoint->connection.reset();
  }
  CHECK(client.closings == 0);
}

TEST_CASE("without free descriptors the listener waits and goes on when there are some") {
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint warm;  // whatever OpenSSL opens lazily is open after this
  network.open(*dialer, warm);

  RawPeer::Options options;
  options.port = network.listener->port();
  RawPeer waiting(options);  // in the backlog
  rlimit original{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &original) == 0);
  const int next_free = ::dup(0);
  REQUIRE(next_free >= 0);
  ::close(next_free);
  rlimit none = original;
  none.rlim_cur = static_cast<rlim_t>(next_free);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  network.run_for(std::chrono::milliseconds(150));
  const std::size_t accepted_meanwhile = network.accepted.size();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &original) == 0);
  CHECK(accepted_meanwhile == 1);
  network.run_until([&] { return network.accepted.size() == 2; });
}

TEST_CASE("listening and dialling work over IPv6 and by name") {
  Network network;
  for (const char* host : {"[::1]", "localhost"}) {
    CAPTURE(host);
    Endpoint server, client;
    auto listener = Listener::make(
        network.loop, options_for(std::string(host) + ":0", network.kit.server_files()),
        [&] { return server.handlers(); });
    if (!listener.ok() && contains(listener.error().message, "cannot assign requested address")) {
      WARN("no IPv6 loopback on this machine: " << listener.error().message);
      continue;
    }
    REQUIRE(listener.ok());
    Dialer::Options dial;
    dial.address = std::string(host) + ":" + std::to_string((*listener)->port());
    dial.tls = network.kit.device_files(1);
    const auto dialer = Dialer::make(network.loop, dial).value();
    dialer->connect(client.handlers());
    network.run_until([&] { return client.opened == 1 && server.opened == 1; });
    CHECK(contains(client.connection->peer_address(), std::to_string((*listener)->port())));
    client.connection->close();
    network.run_until([&] { return client.closed && server.closed; });
  }
}

}  // namespace covey::transport::testing
