#pragma once

#include <openssl/ssl.h>

#include <covey/transport/connection.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>

namespace covey::transport::testing {

/// A blocking TLS client written straight on OpenSSL, for everything a Covey client never does.
/// Calls time out after five seconds.
class RawPeer {
 public:
  struct Options {
    std::uint16_t port = 0;
    std::string certificate;  ///< PEM file, "" for none
    std::string key;
    std::string protocol = "covey/1";  ///< ALPN, "" for none
    int tls_version = TLS1_3_VERSION;
    SSL_SESSION* session = nullptr;  ///< to resume
    int receive_buffer = 0;          ///< bytes, 0 for the system's choice
  };
  /// Connects the socket, without TLS.
  explicit RawPeer(Options options);
  ~RawPeer();
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  /// True when this end's handshake is over; the server may refuse afterwards.
  bool handshake();
  bool write(std::span<const std::byte> bytes);      ///< through TLS
  bool write_raw(std::span<const std::byte> bytes);  ///< past TLS, onto the socket
  /// Reads through TLS until something stops it: "closed" (a TLS goodbye), "cut" (none), "timeout",
  /// or the name of the alert.
  std::string read_to_end();
  /// Reads one byte through TLS, which takes in the server's ticket as well.
  bool read_byte();
  void finish_writing();  ///< no more bytes from here, without a TLS goodbye
  void close();
  SSL* ssl() { return ssl_.get(); }

 private:
  struct Free {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  Options options_;
  int socket_ = -1;
  std::unique_ptr<SSL_CTX, Free> context_;
  std::unique_ptr<SSL, Free> ssl_;
};

/// Runs `work` on a thread of its own; joins when destroyed.
class Background {
 public:
  explicit Background(std::function<void()> work) : thread_(std::move(work)) {}
  ~Background() { thread_.join(); }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

 private:
  std::thread thread_;
};

}  // namespace covey::transport::testing
