#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
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

/// How long to wait for a free descriptor or memory before accepting again.
constexpr Duration kAcceptRetry = std::chrono::milliseconds(100);

/// What the listener shares with its connections, which may outlive it.
class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(EventLoop& loop, Listener::Options options, std::shared_ptr<TlsContext> tls,
           std::function<ConnectionHandlers()> handlers_for)
      : loop_(loop),
        options_(std::move(options)),
        tls_(std::move(tls)),
        handlers_for_(std::move(handlers_for)),
        socket_(loop.internals().io),
        retry_(loop, [this] { accept(); }) {}

  Result<void> listen();
  void accept();
  void stop();
  std::uint16_t port() const { return port_; }
  std::uint64_t trust_version() { return tls_->trust_version(); }
  std::uint32_t connections() const { return connections_; }

 private:
  Result<void> listen_on(const tcp::endpoint& endpoint);
  void on_accepted(const boost::system::error_code& error, tcp::socket socket);
  void start_connection(tcp::socket socket);

  EventLoop& loop_;
  Listener::Options options_;
  std::shared_ptr<TlsContext> tls_;
  std::function<ConnectionHandlers()> handlers_for_;
  tcp::acceptor socket_;
  Timer retry_;
  bool stopped_ = false;
  std::uint16_t port_ = 0;
  std::uint32_t connections_ = 0;
  std::uint64_t next_number_ = 0;
  std::unordered_map<std::uint64_t, std::weak_ptr<TlsConnection>> handshaking_;
};

Result<void> Acceptor::listen() {
  COVEY_ASSIGN(const HostAndPort address, parse_address(options_.address));
  boost::system::error_code error;
  tcp::resolver resolver(loop_.internals().io);
  const auto endpoints = resolver.resolve(
      address.host, std::to_string(address.port),
      asio::ip::resolver_base::passive | asio::ip::resolver_base::numeric_service, error);
  if (error || endpoints.empty()) {
    return invalid_argument(fmt::format("cannot listen on {}: host '{}' is not known ({})",
                                        options_.address, address.host, error.message()));
  }
  return listen_on(endpoints.begin()->endpoint());
}

Result<void> Acceptor::listen_on(const tcp::endpoint& endpoint) {
  boost::system::error_code error;
  socket_.open(endpoint.protocol(), error);
  if (!error) socket_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) socket_.bind(endpoint, error);
  if (!error) socket_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) port_ = socket_.local_endpoint(error).port();
  if (!error) return {};
  return failed(fmt::format("cannot listen on {}: {}", options_.address, words_for(error.value())));
}

void Acceptor::accept() {
  if (stopped_) return;
  socket_.async_accept(
      [self = shared_from_this()](const boost::system::error_code& error, tcp::socket socket) {
        self->on_accepted(error, std::move(socket));
      });
}

void Acceptor::on_accepted(const boost::system::error_code& error, tcp::socket socket) {
  if (stopped_) return;
  if (!error) {
    start_connection(std::move(socket));
    return accept();
  }
  const int number = error.value();
  if (number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM) {
    // The connection stays in the backlog, so accepting again at once would spin.
    return retry_.set(loop_.now() + kAcceptRetry);
  }
  accept();  // the peer was gone before it was accepted
}

void Acceptor::start_connection(tcp::socket socket) {
  boost::system::error_code error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return;  // closes the socket
  if (connections_ >= options_.max_connections) {
    const auto refused = handlers_for_();
    if (refused.on_closed) {
      refused.on_closed(failed("all " + std::to_string(options_.max_connections) + " connections are taken"));
    }
    return;
  }
  ++connections_;
  const std::uint64_t number = next_number_++;
  ConnectionHandlers user = handlers_for_();
  ConnectionHandlers handlers;
  const auto self = shared_from_this();
  handlers.on_open = [self, number,
                      on_open = std::move(user.on_open)](std::shared_ptr<Connection> connection) {
    self->handshaking_.erase(number);
    if (on_open) on_open(std::move(connection));
  };
  handlers.on_frame = std::move(user.on_frame);
  handlers.on_closed = [self, number, on_closed = std::move(user.on_closed)](const Error& reason) {
    self->handshaking_.erase(number);
    --self->connections_;
    if (on_closed) on_closed(reason);
  };
  handshaking_[number] = TlsConnection::start(
      loop_, std::move(socket), {tls_, options_.limits, to_string(peer)}, std::move(handlers));
}

void Acceptor::stop() {
  stopped_ = true;
  retry_.cancel();
  boost::system::error_code ignored;
  socket_.close(ignored);
  for (const auto& [number, weak] : std::exchange(handshaking_, {})) {
    if (const auto connection = weak.lock()) {
      connection->abort(failed(fmt::format("handshake with {} failed: this end stopped listening",
                                           connection->peer_address())));
    }
  }
}

class TcpListener final : public Listener {
 public:
  explicit TcpListener(std::shared_ptr<Acceptor> acceptor) : acceptor_(std::move(acceptor)) {}
  ~TcpListener() override { acceptor_->stop(); }
  std::uint16_t port() const override { return acceptor_->port(); }
  std::uint64_t trust_version() override { return acceptor_->trust_version(); }
  std::uint32_t connections() const override { return acceptor_->connections(); }

 private:
  std::shared_ptr<Acceptor> acceptor_;
};

}  // namespace

Result<std::unique_ptr<Listener>> Listener::make(EventLoop& loop, Options options,
                                                 std::function<ConnectionHandlers()> handlers_for) {
  COVEY_ASSIGN(std::shared_ptr<TlsContext> tls,
               TlsContext::make(TlsContext::Role::kServer, options.tls, ""));
  auto acceptor =
      std::make_shared<Acceptor>(loop, std::move(options), std::move(tls), std::move(handlers_for));
  COVEY_TRY(acceptor->listen());
  acceptor->accept();
  return std::unique_ptr<Listener>(std::make_unique<TcpListener>(std::move(acceptor)));
}

}  // namespace covey::transport
