#include "tls_context.hpp"

#include <fmt/format.h>
#include <openssl/err.h>

#include <covey/assert.hpp>
#include <cstring>
#include <utility>

#include "asio.hpp"
#include "certificate_identity.hpp"
#include "pem_files.hpp"
#include "tls_errors.hpp"

namespace covey::transport {
namespace {

/// ALPN's wire form: a length byte, then the name.
constexpr unsigned char kProtocol[] = {7, 'c', 'o', 'v', 'e', 'y', '/', '1'};
constexpr unsigned char kSessionIdContext[] = {'c', 'o', 'v', 'e', 'y', '/', '1'};

/// Devices reconnect within a day; a certificate is looked at again at every resumption.
constexpr long kSessionSeconds = 24 * 60 * 60;

bool is_covey(const unsigned char* name, unsigned length) {
  return length == kProtocol[0] && std::memcmp(name, kProtocol + 1, length) == 0;
}

Result<void> check_purpose(X509* certificate, std::uint32_t purpose, std::string_view subject) {
  // OpenSSL accepts a certificate without the extension for every purpose; Covey does not.
  const std::uint32_t allowed = X509_get_extended_key_usage(certificate);
  if (allowed == UINT32_MAX || (allowed & purpose) == 0) {
    return failed(fmt::format("{} is not meant for this use (extended key usage) ({})", subject,
                              common_name_of(certificate)));
  }
  return {};
}

}  // namespace

TlsContext::TlsContext(Role role, std::string server_name, Trust trust, SslContextPtr context)
    : role_(role),
      server_name_(std::move(server_name)),
      trust_(std::move(trust)),
      context_(std::move(context)) {
  boost::system::error_code error;
  asio::ip::make_address(server_name_, error);
  server_name_is_address_ = !error;
}

Result<std::shared_ptr<TlsContext>> TlsContext::make(Role role, const TlsFiles& files,
                                                     const std::string& server_name) {
  COVEY_ASSIGN(Trust trust, Trust::make(files.ca, files.crl));
  SslContextPtr context(SSL_CTX_new(TLS_method()));
  if (!context) return failed("cannot start OpenSSL: out of memory");
  std::shared_ptr<TlsContext> self(
      new TlsContext(role, server_name, std::move(trust), std::move(context)));
  self->configure();
  COVEY_TRY(self->use_own_certificate(files));
  return self;
}

Result<void> TlsContext::use_own_certificate(const TlsFiles& files) {
  COVEY_ASSIGN(std::vector<X509Ptr> chain, load_certificates(files.certificate));
  COVEY_ASSIGN(const EvpPkeyPtr key, load_private_key(files.key));
  const X509Ptr own = std::move(chain.front());
  chain.erase(chain.begin());
  if (X509_check_private_key(own.get(), key.get()) != 1) {
    ERR_clear_error();
    return invalid_argument(
        fmt::format("key '{}' does not fit certificate '{}'", files.key, files.certificate));
  }
  const bool server = role_ == Role::kServer;
  const std::string subject = fmt::format("certificate '{}'", files.certificate);
  COVEY_TRY(
      trust_.verify_own(own.get(), chain, server ? "ssl_server" : "ssl_client", files.certificate));
  Result<PeerIdentity> identity = identity_of_x509(own.get());
  if (!identity.ok()) return with_context(subject, identity.error());
  if (server != (identity->kind == PeerIdentity::Kind::kServer)) {
    return invalid_argument(
        fmt::format("{} is {}", subject,
                    server ? "not a server's" : "a server's, not a device's or operator's"));
  }
  COVEY_TRY(check_purpose(own.get(), server ? XKU_SSL_SERVER : XKU_SSL_CLIENT, subject));
  identity_ = std::move(*identity);

  bool used = SSL_CTX_use_certificate(context_.get(), own.get()) == 1 &&
              SSL_CTX_use_PrivateKey(context_.get(), key.get()) == 1;
  for (const X509Ptr& link : chain) {
    used = used && SSL_CTX_add1_chain_cert(context_.get(), link.get()) == 1;
  }
  if (!used) {
    return invalid_argument(
        fmt::format("{} cannot be used: {}", subject,
                    describe_tls_failure({SSL_ERROR_SSL, 0, false, peer_word(), ""})));
  }
  return {};
}

void TlsContext::configure() {
  SSL_CTX* context = context_.get();
  COVEY_ASSERT(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1);
  COVEY_ASSERT(SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1);
  COVEY_ASSERT(SSL_CTX_set1_groups_list(context, "X25519:P-256") == 1);
  // AES-128 first: it is the fastest with AES instructions, and 128 bits are what X25519 and P-256
  // give. ChaCha20 second, for devices without such instructions.
  COVEY_ASSERT(SSL_CTX_set_ciphersuites(context,
                                        "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:"
                                        "TLS_AES_256_GCM_SHA384") == 1);
  // Released buffers are what makes an idle connection small; without automatic chains the
  // authority's certificate, which the peer has, is not sent.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_read_ahead(context, 1);  // one read per record instead of two
  SSL_CTX_set_timeout(context, kSessionSeconds);
  SSL_CTX_set_app_data(context, this);
  SSL_CTX_set1_cert_store(context, trust_.make_store(true).get());
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
  if (role_ == Role::kServer) {
    configure_server();
  } else {
    configure_client();
  }
}

void TlsContext::configure_server() {
  SSL_CTX* context = context_.get();
  SSL_CTX_set_alpn_select_cb(context, on_select_protocol, this);
  // Tickets carry the whole session, so that ten thousand sleeping devices cost the server nothing.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  COVEY_ASSERT(
      SSL_CTX_set_session_id_context(context, kSessionIdContext, sizeof(kSessionIdContext)) == 1);
  COVEY_ASSERT(SSL_CTX_set_num_tickets(context, 1) == 1);
  COVEY_ASSERT(SSL_CTX_set_session_ticket_cb(context, nullptr, on_ticket, this) == 1);
}

void TlsContext::configure_client() {
  SSL_CTX* context = context_.get();
  COVEY_ASSERT(SSL_CTX_set_alpn_protos(context, kProtocol, sizeof(kProtocol)) == 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
  SSL_CTX_sess_set_new_cb(context, on_new_session);
}

void TlsContext::refresh_revocations() {
  if (!trust_.refresh()) return;
  ++lists_read_;
  SSL_CTX_set1_cert_store(context_.get(), trust_.make_store(true).get());
}

Result<void> TlsContext::check_still_trusted(const TlsStream& stream) const {
  const X509Ptr certificate(SSL_get1_peer_certificate(stream.ssl.get()));
  if (!certificate) return failed("peer sent no certificate");
  return trust_.check_still_valid(certificate.get(), "peer's certificate");
}

Result<void> TlsContext::start(TlsStream& stream, int descriptor) {
  refresh_revocations();
  stream.ssl.reset(SSL_new(context_.get()));
  SSL* ssl = stream.ssl.get();
  if (ssl == nullptr || SSL_set_fd(ssl, descriptor) != 1) {
    ERR_clear_error();
    return failed("cannot start TLS: out of memory");
  }
  SSL_set_app_data(ssl, &stream);
  if (role_ == Role::kServer) {
    SSL_set_accept_state(ssl);
    return {};
  }
  SSL_set_connect_state(ssl);
  X509_VERIFY_PARAM* parameters = SSL_get0_param(ssl);
  bool named = false;
  if (server_name_is_address_) {
    named = X509_VERIFY_PARAM_set1_ip_asc(parameters, server_name_.c_str()) == 1;
  } else {
    X509_VERIFY_PARAM_set_hostflags(
        parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    named = X509_VERIFY_PARAM_set1_host(parameters, server_name_.c_str(), 0) == 1 &&
            SSL_set_tlsext_host_name(ssl, server_name_.c_str()) == 1;
  }
  if (!named) {
    ERR_clear_error();
    return invalid_argument(fmt::format("'{}' cannot be a server's name", server_name_));
  }
  if (newest_session_ && SSL_SESSION_is_resumable(newest_session_.get()) == 1) {
    SSL_set_session(ssl, newest_session_.get());
  }
  return {};
}

Result<PeerIdentity> TlsContext::check_peer(TlsStream& stream) {
  refresh_revocations();
  SSL* ssl = stream.ssl.get();
  const unsigned char* protocol = nullptr;
  unsigned protocol_length = 0;
  SSL_get0_alpn_selected(ssl, &protocol, &protocol_length);
  if (!is_covey(protocol, protocol_length)) {
    return failed("peer does not speak covey/1 (no common ALPN protocol)");
  }
  const X509Ptr certificate(SSL_get1_peer_certificate(ssl));
  if (!certificate) return failed("peer sent no certificate");
  if (SSL_get_verify_result(ssl) != X509_V_OK) return failed("peer's certificate does not verify");
  COVEY_TRY(trust_.check_still_valid(certificate.get(), "peer's certificate"));
  const bool server = role_ == Role::kServer;
  COVEY_TRY(check_purpose(certificate.get(), server ? XKU_SSL_CLIENT : XKU_SSL_SERVER,
                          "peer's certificate"));
  Result<PeerIdentity> identity = identity_of_x509(certificate.get());
  if (!identity.ok()) return with_context("peer's certificate", identity.error());
  if (server == (identity->kind == PeerIdentity::Kind::kServer)) {
    return failed(fmt::format("peer's certificate is {} ({})",
                              server ? "a server's" : "not a server's", identity->common_name));
  }
  if (!server) COVEY_TRY(check_server_name(certificate.get()));
  if (SSL_session_reused(ssl) == 1) ++handshakes_resumed_;
  return identity;
}

Result<void> TlsContext::check_server_name(X509* certificate) const {
  const bool named = server_name_is_address_
                         ? X509_check_ip_asc(certificate, server_name_.c_str(), 0) == 1
                         : X509_check_host(certificate, server_name_.c_str(), server_name_.size(),
                                           X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                                           nullptr) == 1;
  if (named) return {};
  return failed(fmt::format("peer's certificate is not for '{}' ({})", server_name_,
                            common_name_of(certificate)));
}

int TlsContext::on_verify(int verified, X509_STORE_CTX* context) {
  if (verified == 1) return 1;
  const auto* ssl = static_cast<const SSL*>(
      X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* stream = static_cast<TlsStream*>(SSL_get_app_data(ssl));
  stream->refusal = describe_verification(context, "peer's certificate");
  return 0;
}

int TlsContext::on_select_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_length,
                                   const unsigned char* offered, unsigned offered_length, void*) {
  unsigned at = 0;
  while (at < offered_length && offered[at] < offered_length - at) {
    if (is_covey(offered + at + 1, offered[at])) {
      *chosen = offered + at + 1;
      *chosen_length = offered[at];
      return SSL_TLSEXT_ERR_OK;
    }
    at += 1U + offered[at];
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

// A ticket whose certificate is no longer good is ignored: the full handshake that follows refuses
// the peer with the alert that says why, which resumption has no means for.
SSL_TICKET_RETURN TlsContext::on_ticket(SSL*, SSL_SESSION* session, const unsigned char*,
                                        std::size_t, SSL_TICKET_STATUS status, void* self) {
  const auto& trust = static_cast<const TlsContext*>(self)->trust_;
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) {
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  }
  X509* certificate = SSL_SESSION_get0_peer(session);
  if (certificate == nullptr || !trust.check_still_valid(certificate, "").ok()) {
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  }
  return SSL_TICKET_RETURN_USE_RENEW;
}

int TlsContext::on_new_session(SSL* ssl, SSL_SESSION* session) {
  auto* self = static_cast<TlsContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  self->newest_session_.reset(session);
  return 1;  // the reference is ours now
}

}  // namespace covey::transport
