#pragma once

#include <covey/bytes.hpp>
#include <covey/ids.hpp>
#include <covey/proto/codec.hpp>
#include <covey/result.hpp>
#include <covey/transport/event_loop.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace covey::transport {

/// PEM files of one end. TLS 1.3 only, both ends authenticated, ALPN "covey/1".
struct TlsFiles {
  std::string ca;           ///< the run's certificate authority
  std::string certificate;  ///< own certificate
  std::string key;          ///< own private key
  std::string crl;  ///< revoked certificates; "" for none. Read again when the file changes.
};

/// Who is at the other end, by its verified certificate alone.
struct PeerIdentity {
  enum class Kind : std::uint8_t { kServer, kDevice, kOperator };
  Kind kind = Kind::kDevice;
  ClientId client{};  ///< devices: from the subject alternative name URI:covey:client:<number>
  std::string common_name;
};

struct ConnectionLimits {
  std::uint32_t max_frame_bytes = 1 << 20;   ///< body of an incoming frame
  std::uint64_t max_queued_bytes = 8 << 20;  ///< outgoing; beyond it the peer is too slow: closed
  Duration handshake_timeout = std::chrono::seconds(10);
  Duration idle_timeout{};  ///< nothing received for so long: closed; 0: never
};

/// One TLS connection, as a handle on the loop thread. Sends are queued and never block; a frame's
/// payload is written from where it lies, not copied.
class Connection {
 public:
  virtual ~Connection() = default;
  virtual void send(proto::Encoded frame) = 0;
  /// Sends what is queued (for at most two seconds), then closes; on_closed follows.
  virtual void close() = 0;
  virtual const PeerIdentity& peer() const = 0;
  /// Error when the peer's certificate has expired or was revoked since the handshake, by the list as it
  /// was last read (Listener::trust_version).
  virtual Result<void> still_trusted() const = 0;
  virtual std::string peer_address() const = 0;
  virtual std::uint64_t bytes_sent() const = 0;  ///< of frames, without TLS
  virtual std::uint64_t bytes_received() const = 0;
};

/// Callbacks of a connection; all on the loop thread, none after on_closed.
struct ConnectionHandlers {
  std::function<void(std::shared_ptr<Connection>)> on_open;  ///< handshake done, peer verified
  /// One frame. `header` is valid during the call, the payload for as long as it is held.
  std::function<void(std::span<const std::byte> header, SharedBytes payload)> on_frame;
  /// Once, with the reason in words; also when it never opened.
  std::function<void(const Error& reason)> on_closed;
};

/// Accepts TLS connections until destroyed: handshakes under way end then, open connections live
/// on.
class Listener {
 public:
  struct Options {
    std::string address = "127.0.0.1:7443";  ///< host:port; port 0 picks one
    TlsFiles tls;
    ConnectionLimits limits;
    std::uint32_t max_connections = 20000;  ///< further ones are closed at once
  };
  /// `handlers_for` is called for each accepted socket, before its handshake; failed handshakes are
  /// reported through on_closed of those handlers. Error: address in use, files unreadable, key
  /// does not fit the certificate.
  static Result<std::unique_ptr<Listener>> make(EventLoop& loop, Options options,
                                                std::function<ConnectionHandlers()> handlers_for);
  virtual ~Listener() = default;
  virtual std::uint16_t port() const = 0;
  /// Looks at the revocation list's file (one stat) and tells how many lists were read so far: another
  /// figure than last time means that open connections are to be asked still_trusted().
  virtual std::uint64_t trust_version() = 0;
  virtual std::uint32_t connections() const = 0;
};

/// Opens TLS connections to one server, with session resumption between them. When destroyed,
/// attempts under way end, open connections live on.
///
/// In TLS 1.3 the server looks at the client's certificate after the client's own handshake is
/// over. A refused client therefore sees on_open, then on_closed with the server's reason.
class Dialer {
 public:
  struct Options {
    std::string address;  ///< host:port
    std::string
        server_name;  ///< must be in the server's certificate; "" takes the host of `address`
    TlsFiles tls;
    ConnectionLimits limits;
    Duration connect_timeout = std::chrono::seconds(10);
  };
  /// Error: files unreadable, certificate expired, not a covey kit.
  static Result<std::unique_ptr<Dialer>> make(EventLoop& loop, Options options);
  virtual ~Dialer() = default;
  virtual void connect(ConnectionHandlers handlers) = 0;
  /// From this end's own certificate.
  virtual const PeerIdentity& identity() const = 0;
  /// Connections so far whose handshake resumed an earlier session.
  virtual std::uint64_t connections_resumed() const = 0;
};

}  // namespace covey::transport
