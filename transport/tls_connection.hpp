#pragma once

#include <covey/transport/connection.hpp>
#include <covey/transport/event_loop.hpp>
#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "asio.hpp"
#include "frame_reader.hpp"
#include "outgoing_frame.hpp"
#include "tls_context.hpp"

namespace covey::transport {

/// Connection over a connected TCP socket, either end. OpenSSL works directly on the non-blocking
/// socket; Asio only tells when it is ready. A pending wait keeps the object alive, so it lives
/// until it is closed, whoever holds it. Loop thread only.
class TlsConnection final : public Connection, public std::enable_shared_from_this<TlsConnection> {
 public:
  struct Options {
    std::shared_ptr<TlsContext> tls;
    ConnectionLimits limits;
    std::string peer_address;
  };

  /// Takes a connected socket and starts the handshake. Never calls a handler before it returns.
  static std::shared_ptr<TlsConnection> start(EventLoop& loop, tcp::socket socket, Options options,
                                              ConnectionHandlers handlers);
  TlsConnection(EventLoop& loop, tcp::socket socket, Options options, ConnectionHandlers handlers);

  void send(proto::Encoded frame) override;
  void close() override;
  const PeerIdentity& peer() const override { return peer_; }
  Result<void> still_trusted() const override { return options_.tls->check_still_trusted(stream_); }
  std::string peer_address() const override { return options_.peer_address; }
  std::uint64_t bytes_sent() const override { return bytes_sent_; }
  std::uint64_t bytes_received() const override { return bytes_received_; }

  /// Closes at once, without sending what is queued; on_closed follows with `reason`.
  void abort(Error reason);

 private:
  enum class State : std::uint8_t {
    kHandshaking,
    kOpen,
    kDraining,   ///< close() was called: writes what is queued, ignores what comes
    kLingering,  ///< everything is written; waits for the peer's end, so that no reset destroys it
    kClosed,
  };

  void configure_socket();
  void wait_readable();
  void wait_writable();
  void on_readable();
  void on_writable();
  void on_deadline();

  void handshake();
  void open();
  void read_frames();
  void read_frames_later();
  void on_read_stopped(int ssl_error, int system_error);
  void deliver();
  void flush();
  void flush_later();
  void on_write_stopped(int ssl_error, int system_error);
  void say_goodbye();
  void discard_input();

  void linger(Error reason);
  std::string describe_failure(int ssl_error, int system_error) const;
  std::string in_sentence(std::string_view why) const;

  EventLoop& loop_;
  tcp::socket socket_;
  Options options_;
  ConnectionHandlers handlers_;
  TlsStream stream_;
  FrameReader reader_;
  Timer deadline_;
  std::deque<OutgoingFrame> queue_;
  std::uint64_t queued_bytes_ = 0;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t bytes_received_ = 0;
  Time last_received_{};
  PeerIdentity peer_;
  Error closing_reason_;  ///< while draining and lingering
  State state_ = State::kHandshaking;
  bool waiting_readable_ = false;
  bool waiting_writable_ = false;
  bool flush_posted_ = false;
  bool read_wants_writable_ = false;
  bool write_wants_readable_ = false;
};

}  // namespace covey::transport
