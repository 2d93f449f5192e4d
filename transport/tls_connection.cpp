#include "tls_connection.hpp"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "event_loop_internals.hpp"
#include "tls_errors.hpp"

namespace covey::transport {
namespace {

/// What one connection may do before others have their turn.
constexpr std::size_t kFramesPerTurn = 32;
constexpr std::size_t kBytesPerTurn = 256 * 1024;

/// How long close() tries to send what is queued and to see the peer's end.
constexpr Duration kCloseTimeout = std::chrono::seconds(2);

// A peer that vanished is noticed after 60 s + 4 * 15 s of silence, or as long with data
// unanswered.
constexpr int kKeepAliveIdleSeconds = 60;
constexpr int kKeepAliveIntervalSeconds = 15;
constexpr int kKeepAliveProbes = 4;
constexpr unsigned kUnansweredMilliseconds =
    1000 * (kKeepAliveIdleSeconds + kKeepAliveIntervalSeconds * kKeepAliveProbes);

bool wants_more(int ssl_error) {
  return ssl_error == SSL_ERROR_WANT_READ || ssl_error == SSL_ERROR_WANT_WRITE;
}

}  // namespace

TlsConnection::TlsConnection(EventLoop& loop, tcp::socket socket, Options options,
                             ConnectionHandlers handlers)
    : loop_(loop),
      socket_(std::move(socket)),
      options_(std::move(options)),
      handlers_(std::move(handlers)),
      reader_(options_.limits.max_frame_bytes),
      deadline_(loop, [this] { on_deadline(); }) {}

std::shared_ptr<TlsConnection> TlsConnection::start(EventLoop& loop, tcp::socket socket,
                                                    Options options, ConnectionHandlers handlers) {
  auto self = std::make_shared<TlsConnection>(loop, std::move(socket), std::move(options),
                                              std::move(handlers));
  self->configure_socket();
  if (Result<void> started =
          self->options_.tls->start(self->stream_, self->socket_.native_handle());
      !started.ok()) {
    self->abort(with_context(self->options_.peer_address, started.error()));
    return self;
  }
  self->deadline_.set(loop.now() + self->options_.limits.handshake_timeout);
  asio::post(loop.internals().io, [self] {
    if (self->state_ == State::kHandshaking) self->handshake();
  });
  return self;
}

void TlsConnection::configure_socket() {
  // Failing options only cost comfort; a broken socket shows at the first read.
  boost::system::error_code ignored;
  socket_.native_non_blocking(true, ignored);
  socket_.set_option(tcp::no_delay(true), ignored);
  socket_.set_option(asio::socket_base::keep_alive(true), ignored);
  const int descriptor = socket_.native_handle();
  const auto set = [descriptor](int option, auto value) {
    ::setsockopt(descriptor, IPPROTO_TCP, option, &value, sizeof(value));
  };
  set(TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  set(TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  set(TCP_KEEPCNT, kKeepAliveProbes);
  set(TCP_USER_TIMEOUT, kUnansweredMilliseconds);
}

void TlsConnection::wait_readable() {
  if (waiting_readable_ || state_ == State::kClosed) return;
  waiting_readable_ = true;
  socket_.async_wait(tcp::socket::wait_read,
                     [self = shared_from_this()](const boost::system::error_code&) {
                       self->waiting_readable_ = false;
                       self->on_readable();
                     });
}

void TlsConnection::wait_writable() {
  if (waiting_writable_ || state_ == State::kClosed) return;
  waiting_writable_ = true;
  socket_.async_wait(tcp::socket::wait_write,
                     [self = shared_from_this()](const boost::system::error_code&) {
                       self->waiting_writable_ = false;
                       self->on_writable();
                     });
}

void TlsConnection::on_readable() {
  switch (state_) {
    case State::kHandshaking:
      return handshake();
    case State::kOpen:
      if (std::exchange(write_wants_readable_, false)) flush();
      if (state_ == State::kOpen) read_frames();
      return;
    case State::kDraining:
    case State::kLingering:
      return discard_input();
    case State::kClosed:
      return;
  }
}

void TlsConnection::on_writable() {
  switch (state_) {
    case State::kHandshaking:
      return handshake();
    case State::kOpen:
      if (std::exchange(read_wants_writable_, false)) read_frames();
      if (state_ == State::kOpen) flush();
      return;
    case State::kDraining:
      return flush();
    case State::kLingering:
    case State::kClosed:
      return;
  }
}

void TlsConnection::on_deadline() {
  // Whoever calls last may drop the last reference.
  const auto self = shared_from_this();
  const double idle_s = seconds(options_.limits.idle_timeout);
  switch (state_) {
    case State::kHandshaking:
      return abort(failed(in_sentence(
          fmt::format("no answer within {:.6g} s", seconds(options_.limits.handshake_timeout)))));
    case State::kOpen: {
      // Receiving does not touch the timer; it looks here whether it fired too early. After a pause
      // of the whole process there may be unread input.
      read_frames();
      if (state_ != State::kOpen) return;
      const Time end = last_received_ + options_.limits.idle_timeout;
      if (loop_.now() < end) return deadline_.set(end);
      return abort(failed(in_sentence(fmt::format("nothing received for {:.6g} s", idle_s))));
    }
    case State::kDraining:
    case State::kLingering:
      return abort(closing_reason_);
    case State::kClosed:
      return;
  }
}

void TlsConnection::handshake() {
  ERR_clear_error();
  errno = 0;
  const int result = SSL_do_handshake(stream_.ssl.get());
  if (result == 1) return open();
  const int system_error = errno;
  const int ssl_error = SSL_get_error(stream_.ssl.get(), result);
  if (ssl_error == SSL_ERROR_WANT_READ) return wait_readable();
  if (ssl_error == SSL_ERROR_WANT_WRITE) return wait_writable();
  // The alert that tells the peer why is already in the socket; lingering lets it arrive.
  linger(failed(in_sentence(describe_failure(ssl_error, system_error))));
}

void TlsConnection::open() {
  Result<PeerIdentity> peer = options_.tls->check_peer(stream_);
  if (!peer.ok()) return linger(failed(in_sentence(peer.error().message)));
  peer_ = std::move(*peer);
  state_ = State::kOpen;
  deadline_.cancel();
  if (options_.limits.idle_timeout > Duration::zero()) {
    last_received_ = loop_.now();
    deadline_.set(last_received_ + options_.limits.idle_timeout);
  }
  if (handlers_.on_open) handlers_.on_open(shared_from_this());
  // Frames may have come along with the handshake's last message.
  if (state_ == State::kOpen) read_frames();
}

void TlsConnection::read_frames() {
  std::size_t frames = 0;
  std::size_t bytes = 0;
  while (state_ == State::kOpen) {
    if (frames >= kFramesPerTurn || bytes >= kBytesPerTurn) return read_frames_later();
    const std::span<std::byte> target = reader_.target();
    std::size_t count = 0;
    ERR_clear_error();
    errno = 0;
    const int result = SSL_read_ex(stream_.ssl.get(), target.data(), target.size(), &count);
    if (result != 1) {
      const int system_error = errno;
      return on_read_stopped(SSL_get_error(stream_.ssl.get(), result), system_error);
    }
    bytes += count;
    bytes_received_ += count;
    if (options_.limits.idle_timeout > Duration::zero()) last_received_ = loop_.now();
    const Result<bool> complete = reader_.advance(count);
    if (!complete.ok()) {
      return linger(malformed(in_sentence(complete.error().message)));
    }
    if (*complete) {
      ++frames;
      deliver();
    }
  }
}

void TlsConnection::read_frames_later() {
  // OpenSSL may hold decrypted bytes, so the socket need not become readable again.
  asio::post(loop_.internals().io, [self = shared_from_this()] {
    if (self->state_ == State::kOpen) self->read_frames();
  });
}

void TlsConnection::on_read_stopped(int ssl_error, int system_error) {
  if (ssl_error == SSL_ERROR_WANT_READ) return wait_readable();
  if (ssl_error == SSL_ERROR_WANT_WRITE) {
    read_wants_writable_ = true;
    return wait_writable();
  }
  std::string why = ssl_error == SSL_ERROR_ZERO_RETURN ? "peer closed the connection"
                                                       : describe_failure(ssl_error, system_error);
  if (!reader_.between_frames()) {
    why += fmt::format(" in the middle of a frame ({} of {} bytes)", reader_.body_received(),
                       reader_.body_expected());
  }
  Error reason = failed(in_sentence(why));
  // After an error of the peer's making OpenSSL has written an alert, which is to arrive.
  if (ssl_error == SSL_ERROR_SSL) return linger(std::move(reason));
  abort(std::move(reason));
}

void TlsConnection::deliver() {
  const FrameReader::Frame frame = reader_.take();
  if (handlers_.on_frame) handlers_.on_frame(frame.header, frame.payload);
}

void TlsConnection::send(proto::Encoded frame) {
  if (state_ != State::kOpen) return;
  OutgoingFrame outgoing(std::move(frame));
  queued_bytes_ += outgoing.size();
  if (queued_bytes_ > options_.limits.max_queued_bytes) {
    return abort(
        failed(in_sentence(fmt::format("peer reads too slowly: {} bytes queued", queued_bytes_))));
  }
  queue_.push_back(std::move(outgoing));
  if (!waiting_writable_) flush_later();
}

void TlsConnection::flush_later() {
  if (flush_posted_) return;
  flush_posted_ = true;
  asio::post(loop_.internals().io, [self = shared_from_this()] {
    self->flush_posted_ = false;
    if (self->state_ == State::kOpen || self->state_ == State::kDraining) self->flush();
  });
}

void TlsConnection::flush() {
  std::size_t written = 0;
  while (!queue_.empty()) {
    if (written >= kBytesPerTurn) return flush_later();
    OutgoingFrame& frame = queue_.front();
    const std::span<const std::byte> rest = frame.rest();
    std::size_t count = 0;
    ERR_clear_error();
    errno = 0;
    const int result =
        SSL_write_ex(stream_.ssl.get(), rest.data(), std::min(rest.size(), kBytesPerTurn), &count);
    if (result != 1) {
      const int system_error = errno;
      return on_write_stopped(SSL_get_error(stream_.ssl.get(), result), system_error);
    }
    written += count;
    bytes_sent_ += count;
    queued_bytes_ -= count;
    frame.advance(count);
    if (frame.done()) queue_.pop_front();
  }
  if (state_ == State::kDraining) say_goodbye();
}

void TlsConnection::on_write_stopped(int ssl_error, int system_error) {
  if (ssl_error == SSL_ERROR_WANT_WRITE) return wait_writable();
  if (ssl_error == SSL_ERROR_WANT_READ) {
    write_wants_readable_ = true;
    return wait_readable();
  }
  const std::string why = describe_failure(ssl_error, system_error);
  // A peer that closed on us may have said why (an alert); that is the better reason.
  if (state_ == State::kOpen) read_frames();
  abort(failed(in_sentence(why)));
}

void TlsConnection::close() {
  if (state_ == State::kHandshaking) return abort(failed(in_sentence("closed by this end")));
  if (state_ != State::kOpen) return;
  state_ = State::kDraining;
  closing_reason_ = failed(in_sentence("closed by this end"));
  deadline_.set(loop_.now() + kCloseTimeout);
  wait_readable();
  if (!waiting_writable_) flush_later();
}

void TlsConnection::say_goodbye() {
  ERR_clear_error();
  errno = 0;
  const int result = SSL_shutdown(stream_.ssl.get());
  if (result < 0 && wants_more(SSL_get_error(stream_.ssl.get(), result))) return wait_writable();
  linger(closing_reason_);
}

void TlsConnection::linger(Error reason) {
  if (state_ == State::kClosed || state_ == State::kLingering) return;
  // A goodbye once, without waiting; OpenSSL declines where TLS itself broke.
  if (state_ != State::kDraining) SSL_shutdown(stream_.ssl.get());
  ERR_clear_error();
  if (state_ != State::kDraining) deadline_.set(loop_.now() + kCloseTimeout);
  state_ = State::kLingering;
  closing_reason_ = std::move(reason);
  boost::system::error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  discard_input();
}

// Closing a socket with unread input makes the kernel send a reset, on which the peer may lose what
// was sent last. So input is read and dropped until the peer's end, without TLS.
void TlsConnection::discard_input() {
  std::array<std::byte, 4096> dropped;
  for (std::size_t bytes = 0; bytes < kBytesPerTurn;) {
    const ssize_t count =
        ::recv(socket_.native_handle(), dropped.data(), dropped.size(), MSG_DONTWAIT);
    if (count > 0) {
      bytes += static_cast<std::size_t>(count);
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      break;
    } else {
      return abort(closing_reason_);
    }
  }
  wait_readable();
}

void TlsConnection::abort(Error reason) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  deadline_.cancel();
  queue_.clear();
  queued_bytes_ = 0;
  if (stream_.ssl) {
    // Freeing an SSL object that was not shut down makes its session useless for resumption.
    SSL_set_shutdown(stream_.ssl.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    stream_.ssl.reset();
  }
  boost::system::error_code ignored;
  socket_.close(ignored);
  // Posted, so that nobody is called back out of send() or close(). The handlers go with it: what
  // they hold may hold this connection.
  asio::post(loop_.internals().io, [self = shared_from_this(), why = std::move(reason)] {
    const ConnectionHandlers handlers = std::exchange(self->handlers_, {});
    if (handlers.on_closed) handlers.on_closed(why);
  });
}

std::string TlsConnection::describe_failure(int ssl_error, int system_error) const {
  return describe_tls_failure({ssl_error, system_error, state_ == State::kHandshaking,
                               options_.tls->peer_word(), stream_.refusal});
}

std::string TlsConnection::in_sentence(std::string_view why) const {
  return state_ == State::kHandshaking
             ? fmt::format("handshake with {} failed: {}", options_.peer_address, why)
             : fmt::format("{}: {}", options_.peer_address, why);
}

}  // namespace covey::transport
