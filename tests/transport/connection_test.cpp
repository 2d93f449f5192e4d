#include <algorithm>

#include "connection_test_support.hpp"

namespace covey::transport::testing {
namespace {

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

/// Makes an accepted endpoint send every frame back.
void echo(Endpoint& endpoint) {
  endpoint.when_frame = [&endpoint](const Endpoint::Frame& frame) {
    endpoint.connection->send({frame.header, frame.payload});
  };
}

}  // namespace

TEST_CASE("frames of all sizes come back as they were sent") {
  Network network;
  network.when_accepted = echo;
  const auto dialer = network.dialer(network.kit.device_files(7));
  Endpoint client;
  network.open(*dialer, client);
  CHECK(network.accepted[0]->connection->peer().client == ClientId{7});
  CHECK(network.accepted[0]->connection->peer().kind == PeerIdentity::Kind::kDevice);
  CHECK(client.connection->peer().kind == PeerIdentity::Kind::kServer);

  // Around a TLS record (16 KiB), the read-ahead of a body (64 KiB) and the largest frame (1 MiB).
  struct Size {
    std::size_t header, payload;
  };
  const std::vector<Size> sizes = {{1, 0},          {1, 1},         {20, 0},
                                   {20, 16384 - 8}, {20, 16384},    {20, 65536 - 20},
                                   {20, 65536},     {70000, 70000}, {20, (1 << 20) - 20},
                                   {0, 5},          {3, 256 * 1024}};
  std::uint64_t bytes = 0;
  std::vector<proto::Encoded> sent;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    sent.push_back(frame_of(sizes[i].header, sizes[i].payload, i));
    bytes += 8 + sent.back().size();
    client.connection->send(sent.back());
  }
  network.run_until([&] { return client.frames.size() == sent.size(); });
  for (std::size_t i = 0; i < sent.size(); ++i) {
    CAPTURE(i);
    CHECK(client.frames[i].header == sent[i].header);
    CHECK(same(client.frames[i].payload.span(), sent[i].payload.span()));
  }
  CHECK(client.connection->bytes_sent() == bytes);
  CHECK(client.connection->bytes_received() == bytes);
  CHECK(network.accepted[0]->connection->bytes_received() == bytes);
}

TEST_CASE("many small frames in one go arrive whole and in order") {
  Network network;
  network.when_accepted = echo;
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  network.open(*dialer, client);
  constexpr std::size_t kFrames = 2000;  // many turns of 32
  for (std::size_t i = 0; i < kFrames; ++i) client.connection->send(frame_of(i % 50 + 1, i % 7, i));
  network.run_until([&] { return client.frames.size() == kFrames; });
  bool in_order = true;
  for (std::size_t i = 0; i < kFrames; ++i) {
    in_order = in_order && client.frames[i].header == pattern_bytes(i % 50 + 1, i);
  }
  CHECK(in_order);
}

TEST_CASE("a payload lives on after its connection is closed and gone") {
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(1));
  SharedBytes kept;
  {
    Endpoint client;
    network.open(*dialer, client);
    client.connection->send(frame_of(10, 300000, 5));
    client.connection->close();
    network.run_until([&] { return client.closed && network.accepted[0]->closed; });
    REQUIRE(network.accepted[0]->frames.size() == 1);
    kept = network.accepted[0]->frames[0].payload;
    network.accepted.clear();
  }
  CHECK(same(kept.span(), pattern_bytes(300000, 6)));
}

TEST_CASE("close sends what is queued, then both ends hear of it once") {
  Network network;
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  network.open(*dialer, client);
  // More than both socket buffers hold, so that close() has to wait for the reader.
  constexpr std::size_t kFrames = 7;
  for (std::size_t i = 0; i < kFrames; ++i) client.connection->send(frame_of(10, 1000000, i));
  client.connection->close();
  client.connection->close();
  client.connection->send(frame_of(10, 10, 99));  // after close: dropped
  network.run_until([&] { return client.closed && network.accepted[0]->closed; });
  network.run_for(std::chrono::milliseconds(5));
  CHECK(network.accepted[0]->frames.size() == kFrames);
  CHECK(same(network.accepted[0]->frames.back().payload.span(), pattern_bytes(1000000, kFrames)));
  CHECK(client.closings == 1);
  CHECK(network.accepted[0]->closings == 1);
  CHECK(contains(client.reason(), "closed by this end"));
  CHECK(contains(network.accepted[0]->reason(), "peer closed the connection"));
  CHECK(contains(network.accepted[0]->reason(), "127.0.0.1:"));
}

TEST_CASE("a handler may send and close the connection it is called from") {
  Network network;
  network.when_accepted = [](Endpoint& endpoint) {
    endpoint.when_frame = [&endpoint](const Endpoint::Frame& frame) {
      endpoint.connection->send({frame.header, frame.payload});
      endpoint.connection->close();
      endpoint.connection.reset();
    };
  };
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  network.open(*dialer, client);
  for (std::uint64_t i = 0; i < 5; ++i) client.connection->send(frame_of(10, 100, i));
  network.run_until([&] { return client.closed && network.accepted[0]->closed; });
  CHECK(network.accepted[0]->frames.size() == 1);  // none after close
  CHECK(client.frames.size() == 1);
}

TEST_CASE("on_open may close at once") {
  Network network;
  network.when_accepted = [](Endpoint& endpoint) {
    endpoint.when_open = [&endpoint] { endpoint.connection->close(); };
  };
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  dialer->connect(client.handlers());
  network.run_until([&] { return client.closed.has_value(); });
  CHECK(client.opened == 1);
  CHECK(contains(client.reason(), "peer closed the connection"));
}

TEST_CASE("more than the queue's limit closes the connection, naming the bytes") {
  ConnectionLimits limits;
  limits.max_queued_bytes = 100000;
  Network network(limits);
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint client;
  network.open(*dialer, client);
  Endpoint& server = *network.accepted[0];
  server.connection->send(frame_of(10, 60000, 1));
  CHECK_FALSE(server.closed);
  server.connection->send(frame_of(10, 60000, 1));
  CHECK_FALSE(server.closed);  // not called back out of send
  network.run_until([&] { return server.closed.has_value(); });
  // Two frames of 8 + 10 + 60000 bytes.
  CHECK(contains(server.reason(), "peer reads too slowly: 120036 bytes queued"));
}

TEST_CASE("an idle connection is closed after its timeout, one that receives is not") {
  ConnectionLimits limits;
  limits.idle_timeout = std::chrono::milliseconds(800);
  Network network(limits);
  const auto dialer = network.dialer(network.kit.device_files(1));
  Endpoint busy;
  Endpoint idle;
  network.open(*dialer, busy);
  const Time start = network.loop.now();
  network.open(*dialer, idle);
  Endpoint& busy_server = *network.accepted[0];
  Endpoint& idle_server = *network.accepted[1];
  Timer* heartbeat = nullptr;
  Timer timer(network.loop, [&] {
    if (busy.connection) busy.connection->send(frame_of(4, 0, 1));
    heartbeat->set(network.loop.now() + std::chrono::milliseconds(20));
  });
  heartbeat = &timer;
  timer.set(network.loop.now());
  network.run_until([&] { return idle_server.closed.has_value(); });
  CHECK(network.loop.now() - start >= limits.idle_timeout);
  network.run_for(std::chrono::milliseconds(200));
  CHECK(contains(idle_server.reason(), "nothing received for 0.8 s"));
  CHECK_FALSE(busy_server.closed);
}

}  // namespace covey::transport::testing
