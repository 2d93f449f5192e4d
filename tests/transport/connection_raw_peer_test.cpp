#include "connection_raw_peer.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>
#include <vector>

namespace covey::transport::testing {

RawPeer::RawPeer(Options options) : options_(std::move(options)) {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval timeout{5, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  if (options_.receive_buffer > 0) {
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &options_.receive_buffer, sizeof(int));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(options_.port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw std::runtime_error("the raw peer cannot connect");
  }
}

RawPeer::~RawPeer() { close(); }

void RawPeer::close() {
  if (ssl_) SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  ssl_.reset();
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

void RawPeer::finish_writing() { ::shutdown(socket_, SHUT_WR); }

bool RawPeer::handshake() {
  context_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_min_proto_version(context_.get(), options_.tls_version);
  SSL_CTX_set_max_proto_version(context_.get(), options_.tls_version);
  if (!options_.certificate.empty()) {
    SSL_CTX_use_certificate_chain_file(context_.get(), options_.certificate.c_str());
    SSL_CTX_use_PrivateKey_file(context_.get(), options_.key.c_str(), SSL_FILETYPE_PEM);
  }
  if (!options_.protocol.empty()) {
    std::vector<unsigned char> offer{static_cast<unsigned char>(options_.protocol.size())};
    offer.insert(offer.end(), options_.protocol.begin(), options_.protocol.end());
    SSL_CTX_set_alpn_protos(context_.get(), offer.data(), static_cast<unsigned>(offer.size()));
  }
  ssl_.reset(SSL_new(context_.get()));
  SSL_set_fd(ssl_.get(), socket_);
  if (options_.session != nullptr) SSL_set_session(ssl_.get(), options_.session);
  ERR_clear_error();
  return SSL_connect(ssl_.get()) == 1;
}

bool RawPeer::write(std::span<const std::byte> bytes) {
  return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())) ==
         static_cast<int>(bytes.size());
}

bool RawPeer::write_raw(std::span<const std::byte> bytes) {
  return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

bool RawPeer::read_byte() {
  char byte = 0;
  return SSL_read(ssl_.get(), &byte, 1) == 1;
}

std::string RawPeer::read_to_end() {
  if (!ssl_) {
    char byte = 0;
    ssize_t count = 0;
    while ((count = ::recv(socket_, &byte, 1, 0)) == 1) {
    }
    return count == 0 ? "cut" : "timeout";
  }
  std::array<char, 16384> buffer{};
  while (true) {
    ERR_clear_error();
    const int count = SSL_read(ssl_.get(), buffer.data(), static_cast<int>(buffer.size()));
    if (count > 0) continue;
    const int error = SSL_get_error(ssl_.get(), count);
    if (error == SSL_ERROR_ZERO_RETURN) return "closed";
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return "timeout";
    const int reason = ERR_GET_REASON(ERR_peek_error());
    if (error == SSL_ERROR_SSL && reason > SSL_AD_REASON_OFFSET) {
      const int alert = reason - SSL_AD_REASON_OFFSET;
      // OpenSSL 3.0 has no name for this one.
      if (alert == SSL_AD_CERTIFICATE_REQUIRED) return "certificate required";
      return SSL_alert_desc_string_long(alert);
    }
    return "cut";
  }
}

}  // namespace covey::transport::testing
