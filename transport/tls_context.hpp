#pragma once

#include <covey/result.hpp>
#include <covey/transport/connection.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "openssl.hpp"
#include "trust.hpp"

namespace covey::transport {

/// The TLS state of one connection. OpenSSL keeps a pointer to it, so it must not move.
struct TlsStream {
  SslPtr ssl;
  std::string refusal;  ///< why this end refused the peer's certificate, for `describe`
};

/// What all connections of a listener or a dialer share: own key, trusted authority, revocations,
/// and at a dialer the newest session. TLS 1.3, both ends authenticated, ALPN "covey/1". Loop
/// thread only.
class TlsContext {
 public:
  enum class Role : std::uint8_t { kServer, kClient };

  /// `server_name` (clients): what the server's certificate must name. Error: files unreadable, key
  /// and certificate do not fit, own certificate expired, of another authority or of another kind.
  static Result<std::shared_ptr<TlsContext>> make(Role role, const TlsFiles& files,
                                                  const std::string& server_name);
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  /// Makes `stream` ready for a handshake on the socket `descriptor`, which stays the caller's.
  Result<void> start(TlsStream& stream, int descriptor);

  /// After the handshake, also a resumed one: who the peer is, if its certificate is still good, is
  /// meant for this use and names the right server.
  Result<PeerIdentity> check_peer(TlsStream& stream);

  /// What can change while a connection is open: its peer's certificate expires or is revoked.
  Result<void> check_still_trusted(const TlsStream& stream) const;

  /// Reads the revocation list again if its file changed; how many were read so far.
  std::uint64_t trust_version() {
    refresh_revocations();
    return lists_read_;
  }

  const PeerIdentity& identity() const { return identity_; }
  std::string_view peer_word() const { return role_ == Role::kServer ? "client" : "server"; }
  std::uint64_t handshakes_resumed() const { return handshakes_resumed_; }

 private:
  TlsContext(Role role, std::string server_name, Trust trust, SslContextPtr context);
  Result<void> use_own_certificate(const TlsFiles& files);
  void configure();
  void configure_server();
  void configure_client();
  void refresh_revocations();
  Result<void> check_server_name(X509* certificate) const;

  // OpenSSL's callbacks.
  static int on_verify(int verified, X509_STORE_CTX* context);
  static int on_select_protocol(SSL* ssl, const unsigned char** chosen,
                                unsigned char* chosen_length, const unsigned char* offered,
                                unsigned offered_length, void* self);
  static SSL_TICKET_RETURN on_ticket(SSL* ssl, SSL_SESSION* session, const unsigned char* key_name,
                                     std::size_t key_name_length, SSL_TICKET_STATUS status,
                                     void* self);
  static int on_new_session(SSL* ssl, SSL_SESSION* session);

  Role role_;
  std::string server_name_;
  bool server_name_is_address_ = false;
  Trust trust_;
  std::uint64_t lists_read_ = 1;
  SslContextPtr context_;
  PeerIdentity identity_;
  SslSessionPtr newest_session_;
  std::uint64_t handshakes_resumed_ = 0;
};

}  // namespace covey::transport
