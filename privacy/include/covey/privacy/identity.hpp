#pragma once

#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// Who a device is to other devices, where the server is not trusted to say: an Ed25519 key,
/// certified by the run's authority when the device was provisioned.
namespace covey::privacy {

/// The authority's public key, with which certificates of identities are checked. Any thread.
/// Copies share what they have checked before, so that the same neighbours of later rounds cost a
/// hash each.
class AuthorityKey {
 public:
  /// From the authority's X.509 certificate (its key: ECDSA P-256 or Ed25519).
  static Result<AuthorityKey> from_certificate_pem(const std::string& pem);
  /// Error naming the client whose certificate is not this authority's.
  Result<void> check(const IdentityCertificate& certificate) const;

 private:
  friend class IdentityAuthority;
  struct State;
  explicit AuthorityKey(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

/// A device's own identity. Any thread may sign.
class Identity {
 public:
  static Result<Identity> make(SecretSource& secrets);
  /// The key as PEM (PKCS#8), as `covey provision` writes it into a kit.
  static Result<Identity> from_pem(const std::string& key_pem);
  Result<std::string> to_pem() const;

  PublicKey public_key() const;
  Signature sign(std::span<const std::byte> message) const;

 private:
  struct State;
  explicit Identity(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

/// Ed25519. Error: the signature is not `key`'s, or `key` is none.
Result<void> check_signature(const PublicKey& key, std::span<const std::byte> message,
                             const Signature& signature);

/// The authority vouches that `key` is `client`'s: a signature over "covey identity v1", the number
/// and the key, which cannot be taken for a certificate of TLS. `authority_key_pem`: its private
/// key.
Result<IdentityCertificate> certify(const std::string& authority_key_pem, ClientId client,
                                    const PublicKey& key);
/// As a small text file of a kit (client, key, signature in hexadecimal), and back.
std::string to_text(const IdentityCertificate& certificate);
Result<IdentityCertificate> identity_certificate_from_text(const std::string& text);

/// What a device hands in to be certified: its public key, signed by itself so that nobody can
/// claim another's. Text that may stand behind the PEM of another request.
std::string to_request_text(const Identity& identity);
/// The key of the request in `text`, none where there is no request. Error: it is malformed or not
/// signed by its key.
Result<std::optional<PublicKey>> identity_request_from_text(const std::string& text);

/// What a device needs to take part against a malicious server.
struct DeviceCredentials {
  Identity identity;
  IdentityCertificate certificate;
  AuthorityKey authority;
};

/// An authority and the identities it certified, made in memory: for simulations and tests.
class IdentityAuthority {
 public:
  static Result<IdentityAuthority> make(SecretSource& secrets);
  Result<DeviceCredentials> issue(ClientId client, SecretSource& secrets) const;
  const AuthorityKey& key() const;

 private:
  struct State;
  explicit IdentityAuthority(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace covey::privacy
