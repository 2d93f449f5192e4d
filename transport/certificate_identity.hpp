#pragma once

#include <openssl/x509.h>

#include <covey/result.hpp>
#include <covey/transport/connection.hpp>

namespace covey::transport {

/// Who a certificate says its holder is: from its single `covey:` URI among the subject alternative
/// names. Error when there is none, more than one, or one that is not exactly of a known form. It
/// does not verify the certificate: ask only for one whose chain was verified. Borrows
/// `certificate`.
Result<PeerIdentity> identity_of_x509(X509* certificate);

}  // namespace covey::transport
