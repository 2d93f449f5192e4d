#pragma once

#include <sys/stat.h>

#include <covey/result.hpp>
#include <string>
#include <vector>

#include "openssl.hpp"

namespace covey::transport {

/// Whom this end believes: the run's authority, less the certificates its revocation list names.
/// The list is read again when its file changes. Loop thread only.
class Trust {
 public:
  /// `crl_path` "" for none.
  static Result<Trust> make(const std::string& ca_path, const std::string& crl_path);

  /// Looks whether the revocation list's file changed (one stat); true when a new one was read. A
  /// file that is missing or broken (half written) changes nothing: what was revoked stays revoked,
  /// and the next call looks again.
  bool refresh();

  /// Authorities and revocation lists, for OpenSSL's verification.
  X509StorePtr make_store(bool with_revocations) const;

  /// What can change after a certificate's chain was verified: error when it is past its time or
  /// revoked by now. This is all that a resumed session needs.
  Result<void> check_still_valid(X509* certificate, const std::string& subject) const;

  /// Verifies this end's own certificate for a purpose of X509_STORE_CTX_set_default.
  Result<void> verify_own(X509* certificate, const std::vector<X509Ptr>& chain, const char* purpose,
                          const std::string& path) const;

 private:
  /// What tells a file's versions apart, also when it is replaced by rename.
  struct Stamp {
    timespec modified{};
    off_t size = -1;
    ino_t inode = 0;
    bool operator==(const Stamp& other) const;
  };
  static Stamp stamp_of(const std::string& path);

  std::string crl_path_;
  Stamp crl_stamp_;
  std::vector<X509Ptr> authorities_;
  std::vector<X509CrlPtr> revocations_;
};

}  // namespace covey::transport
