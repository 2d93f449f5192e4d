#include "pem_files.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "address.hpp"

namespace covey::transport {
namespace {

// OpenSSL would otherwise ask for a password on the terminal.
int no_password(char*, int, int, void*) { return 0; }

Result<BioPtr> open_file(const std::string& path, std::string_view what) {
  ERR_clear_error();
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) {
    return not_found(fmt::format("cannot read {} '{}': {}", what, path, words_for(errno)));
  }
  BioPtr bio(BIO_new_fp(file, BIO_CLOSE));
  if (!bio) {
    std::fclose(file);
    return failed(fmt::format("cannot read {} '{}': out of memory", what, path));
  }
  return bio;
}

/// Whether reading stopped at the end of the file rather than in a broken block. Empties the queue.
bool stopped_at_end() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

/// Reads blocks by `read(bio)` until the end of the file.
template <typename Pointer, typename Read>
Result<std::vector<Pointer>> load_all(const std::string& path, std::string_view what, Read read) {
  COVEY_ASSIGN(const BioPtr bio, open_file(path, what));
  std::vector<Pointer> all;
  while (Pointer one{read(bio.get())}) all.push_back(std::move(one));
  if (!stopped_at_end()) {
    return invalid_argument(fmt::format("{} '{}' has a broken PEM block", what, path));
  }
  if (all.empty()) {
    return invalid_argument(fmt::format("{} '{}' holds no PEM block of that kind", what, path));
  }
  return all;
}

bool signed_by(X509_CRL* crl, X509* authority) {
  EVP_PKEY* key = X509_get0_pubkey(authority);
  const bool ours =
      X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(authority)) == 0 &&
      key != nullptr && X509_CRL_verify(crl, key) == 1;
  ERR_clear_error();
  return ours;
}

}  // namespace

Result<std::vector<X509Ptr>> load_certificates(const std::string& path) {
  return load_all<X509Ptr>(path, "certificate file", [](BIO* bio) {
    return PEM_read_bio_X509(bio, nullptr, no_password, nullptr);
  });
}

Result<EvpPkeyPtr> load_private_key(const std::string& path) {
  COVEY_ASSIGN(const BioPtr bio, open_file(path, "private key"));
  EvpPkeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (!key) {
    return invalid_argument(
        fmt::format("'{}' holds no private key that can be read (PEM, without a password)", path));
  }
  return key;
}

Result<std::vector<X509CrlPtr>> load_revocation_lists(const std::string& path,
                                                      const std::vector<X509Ptr>& authorities) {
  COVEY_ASSIGN(std::vector<X509CrlPtr> lists,
               load_all<X509CrlPtr>(path, "revocation list", [](BIO* bio) {
                 return PEM_read_bio_X509_CRL(bio, nullptr, no_password, nullptr);
               }));
  for (const X509CrlPtr& list : lists) {
    const bool ours = std::any_of(authorities.begin(), authorities.end(), [&](const X509Ptr& ca) {
      return signed_by(list.get(), ca.get());
    });
    if (!ours) {
      return invalid_argument(
          fmt::format("revocation list '{}' is not signed by the run's authority", path));
    }
  }
  return lists;
}

}  // namespace covey::transport
