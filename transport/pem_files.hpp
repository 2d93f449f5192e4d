#pragma once

#include <covey/result.hpp>
#include <string>
#include <vector>

#include "openssl.hpp"

/// PEM files as OpenSSL's objects. Errors name the file.
namespace covey::transport {

/// All certificates of a file, at least one.
Result<std::vector<X509Ptr>> load_certificates(const std::string& path);

/// An unencrypted private key.
Result<EvpPkeyPtr> load_private_key(const std::string& path);

/// All revocation lists of a file, at least one, each signed by one of `authorities`.
Result<std::vector<X509CrlPtr>> load_revocation_lists(const std::string& path,
                                                      const std::vector<X509Ptr>& authorities);

}  // namespace covey::transport
