#include "trust.hpp"

#include <fmt/format.h>
#include <openssl/err.h>

#include <covey/assert.hpp>
#include <utility>

#include "pem_files.hpp"
#include "tls_errors.hpp"

namespace covey::transport {

bool Trust::Stamp::operator==(const Stamp& other) const {
  return modified.tv_sec == other.modified.tv_sec && modified.tv_nsec == other.modified.tv_nsec &&
         size == other.size && inode == other.inode;
}

Trust::Stamp Trust::stamp_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {status.st_mtim, status.st_size, status.st_ino};
}

Result<Trust> Trust::make(const std::string& ca_path, const std::string& crl_path) {
  Trust trust;
  COVEY_ASSIGN(trust.authorities_, load_certificates(ca_path));
  if (!crl_path.empty()) {
    trust.crl_path_ = crl_path;
    trust.crl_stamp_ = stamp_of(crl_path);  // before reading: a change in between is seen later
    COVEY_ASSIGN(trust.revocations_, load_revocation_lists(crl_path, trust.authorities_));
  }
  return trust;
}

bool Trust::refresh() {
  if (crl_path_.empty()) return false;
  const Stamp stamp = stamp_of(crl_path_);
  if (stamp == crl_stamp_ || stamp.size < 0) return false;
  Result<std::vector<X509CrlPtr>> lists = load_revocation_lists(crl_path_, authorities_);
  if (!lists.ok()) return false;
  revocations_ = std::move(*lists);
  crl_stamp_ = stamp;
  return true;
}

X509StorePtr Trust::make_store(bool with_revocations) const {
  X509StorePtr store(X509_STORE_new());
  COVEY_ASSERT(store != nullptr);
  for (const X509Ptr& authority : authorities_) {
    COVEY_ASSERT(X509_STORE_add_cert(store.get(), authority.get()) == 1);
  }
  if (with_revocations && !revocations_.empty()) {
    for (const X509CrlPtr& list : revocations_) {
      COVEY_ASSERT(X509_STORE_add_crl(store.get(), list.get()) == 1);
    }
    X509_STORE_set_flags(store.get(), X509_V_FLAG_CRL_CHECK);
  }
  return store;
}

Result<void> Trust::check_still_valid(X509* certificate, const std::string& subject) const {
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0) {
    return failed(fmt::format("{} expired on {} ({})", subject,
                              date_of(X509_get0_notAfter(certificate)),
                              common_name_of(certificate)));
  }
  for (const X509CrlPtr& list : revocations_) {
    X509_REVOKED* entry = nullptr;
    if (X509_NAME_cmp(X509_CRL_get_issuer(list.get()), X509_get_issuer_name(certificate)) == 0 &&
        X509_CRL_get0_by_cert(list.get(), &entry, certificate) == 1) {
      return failed(fmt::format("{} was revoked ({})", subject, common_name_of(certificate)));
    }
  }
  return {};
}

Result<void> Trust::verify_own(X509* certificate, const std::vector<X509Ptr>& chain,
                               const char* purpose, const std::string& path) const {
  const X509StorePtr store = make_store(false);
  const X509StoreContextPtr context(X509_STORE_CTX_new());
  STACK_OF(X509)* untrusted = sk_X509_new_null();
  COVEY_ASSERT(context != nullptr && untrusted != nullptr);
  for (const X509Ptr& link : chain) sk_X509_push(untrusted, link.get());
  COVEY_ASSERT(X509_STORE_CTX_init(context.get(), store.get(), certificate, untrusted) == 1);
  X509_STORE_CTX_set_default(context.get(), purpose);
  const bool verified = X509_verify_cert(context.get()) == 1;
  Result<void> result;
  if (!verified) {
    result = invalid_argument(
        describe_verification(context.get(), fmt::format("certificate '{}'", path)));
  }
  sk_X509_free(untrusted);
  ERR_clear_error();
  return result;
}

}  // namespace covey::transport
