#include <fmt/format.h>

#include <algorithm>
#include <covey/transport/connection.hpp>
#include <unordered_map>
#include <utility>

#include "address.hpp"
#include "asio.hpp"
#include "event_loop_internals.hpp"
#include "tls_connection.hpp"
#include "tls_context.hpp"

namespace covey::transport {
namespace {

/// One connection on its way: resolves, connects, then hands the socket to a TlsConnection. Calls
/// on_closed itself only when it comes to no connection.
class Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  Attempt(EventLoop& loop, const Dialer::Options& options, HostAndPort server,
          std::shared_ptr<TlsContext> tls, ConnectionHandlers handlers)
      : loop_(loop),
        options_(options),
        server_(std::move(server)),
        tls_(std::move(tls)),
        handlers_(std::move(handlers)),
        resolver_(loop.internals().io),
        socket_(loop.internals().io),
        deadline_(loop, [this] { on_deadline(); }) {}

  void start();
  /// Ends it now, on_closed follows, unless the connection is open already.
  void abort();

 private:
  void on_resolved(const boost::system::error_code& error, tcp::resolver::results_type results);
  void connect_next();
  void on_connected(const boost::system::error_code& error);
  void on_deadline();
  void fail(Error reason);

  EventLoop& loop_;
  const Dialer::Options options_;
  const HostAndPort server_;
  std::shared_ptr<TlsContext> tls_;
  ConnectionHandlers handlers_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  Timer deadline_;
  std::vector<tcp::endpoint> endpoints_;
  std::size_t next_ = 0;
  bool over_ = false;
  std::weak_ptr<TlsConnection> connection_;
};

void Attempt::start() {
  deadline_.set(loop_.now() + options_.connect_timeout);
  boost::system::error_code not_numeric;
  const asio::ip::address address = asio::ip::make_address(server_.host, not_numeric);
  if (!not_numeric) {
    endpoints_.emplace_back(address, server_.port);
    return connect_next();
  }
  resolver_.async_resolve(server_.host, std::to_string(server_.port),
                          asio::ip::resolver_base::numeric_service,
                          [self = shared_from_this()](const boost::system::error_code& error,
                                                      tcp::resolver::results_type results) {
                            self->on_resolved(error, std::move(results));
                          });
}

void Attempt::on_resolved(const boost::system::error_code& error,
                          tcp::resolver::results_type results) {
  if (over_) return;
  if (error || results.empty()) {
    return fail(failed(fmt::format("cannot connect to {}: host '{}' is not known ({})",
                                   options_.address, server_.host, error.message())));
  }
  for (const auto& result : results) endpoints_.push_back(result.endpoint());
  connect_next();
}

void Attempt::connect_next() {
  // Each address gets its share of the time, so that one that swallows packets does not hide the
  // rest.
  deadline_.set(loop_.now() +
                options_.connect_timeout / static_cast<std::int64_t>(endpoints_.size()));
  boost::system::error_code ignored;
  socket_.close(ignored);
  socket_ = tcp::socket(loop_.internals().io);
  const std::size_t index = next_++;
  socket_.async_connect(endpoints_[index],
                        [self = shared_from_this(), index](const boost::system::error_code& error) {
                          // A late answer of an address that was given up.
                          if (self->over_ || index + 1 != self->next_) return;
                          self->on_connected(error);
                        });
}

void Attempt::on_connected(const boost::system::error_code& error) {
  if (error) {
    if (next_ < endpoints_.size()) return connect_next();
    return fail(failed(
        fmt::format("cannot connect to {}: {}", options_.address, words_for(error.value()))));
  }
  over_ = true;
  deadline_.cancel();
  connection_ = TlsConnection::start(loop_, std::move(socket_),
                                     {tls_, options_.limits, to_string(endpoints_[next_ - 1])},
                                     std::exchange(handlers_, {}));
}

void Attempt::on_deadline() {
  if (over_) return;
  const auto self = shared_from_this();
  if (next_ > 0 && next_ < endpoints_.size()) return connect_next();
  fail(failed(fmt::format("cannot connect to {}: no answer within {:.6g} s", options_.address,
                          seconds(options_.connect_timeout))));
}

void Attempt::abort() {
  if (const auto connection = connection_.lock()) {
    return connection->abort(failed(
        fmt::format("handshake with {} failed: this end gave up", connection->peer_address())));
  }
  fail(failed(fmt::format("cannot connect to {}: this end gave up", options_.address)));
}

void Attempt::fail(Error reason) {
  if (over_) return;
  over_ = true;
  deadline_.cancel();
  resolver_.cancel();
  boost::system::error_code ignored;
  socket_.close(ignored);
  asio::post(loop_.internals().io, [self = shared_from_this(), why = std::move(reason)] {
    const ConnectionHandlers handlers = std::exchange(self->handlers_, {});
    if (handlers.on_closed) handlers.on_closed(why);
  });
}

using Attempts = std::unordered_map<std::uint64_t, std::shared_ptr<Attempt>>;

class TcpDialer final : public Dialer {
 public:
  TcpDialer(EventLoop& loop, Options options, HostAndPort server, std::shared_ptr<TlsContext> tls)
      : loop_(loop),
        options_(std::move(options)),
        server_(std::move(server)),
        tls_(std::move(tls)) {}

  ~TcpDialer() override {
    for (const auto& [number, attempt] : std::exchange(*attempts_, {})) attempt->abort();
  }

  void connect(ConnectionHandlers user) override {
    const std::uint64_t number = next_number_++;
    ConnectionHandlers handlers;
    handlers.on_open = [attempts = attempts_, number,
                        on_open = std::move(user.on_open)](std::shared_ptr<Connection> connection) {
      attempts->erase(number);
      if (on_open) on_open(std::move(connection));
    };
    handlers.on_frame = std::move(user.on_frame);
    handlers.on_closed = [attempts = attempts_, number,
                          on_closed = std::move(user.on_closed)](const Error& reason) {
      attempts->erase(number);
      if (on_closed) on_closed(reason);
    };
    auto attempt = std::make_shared<Attempt>(loop_, options_, server_, tls_, std::move(handlers));
    (*attempts_)[number] = attempt;
    attempt->start();
  }

  const PeerIdentity& identity() const override { return tls_->identity(); }
  std::uint64_t connections_resumed() const override { return tls_->handshakes_resumed(); }

 private:
  EventLoop& loop_;
  Options options_;
  HostAndPort server_;
  std::shared_ptr<TlsContext> tls_;
  std::uint64_t next_number_ = 0;
  /// Not open yet. Shared with the handlers, which may outlive the dialer.
  std::shared_ptr<Attempts> attempts_ = std::make_shared<Attempts>();
};

}  // namespace

Result<std::unique_ptr<Dialer>> Dialer::make(EventLoop& loop, Options options) {
  COVEY_ASSIGN(HostAndPort server, parse_address(options.address));
  COVEY_ASSIGN(std::shared_ptr<TlsContext> tls,
               TlsContext::make(TlsContext::Role::kClient, options.tls,
                                options.server_name.empty() ? server.host : options.server_name));
  return std::unique_ptr<Dialer>(
      std::make_unique<TcpDialer>(loop, std::move(options), std::move(server), std::move(tls)));
}

}  // namespace covey::transport
