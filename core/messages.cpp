#include <covey/messages.hpp>

#include <algorithm>
#include <string_view>

namespace covey {

bool operator==(const BlobChunk& a, const BlobChunk& b) {
  return a.blob == b.blob && a.offset == b.offset &&
         std::ranges::equal(a.payload.span(), b.payload.span());
}

std::string_view to_string(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kVersion: return "version";
    case RefusalReason::kRevoked: return "revoked";
    case RefusalReason::kProtocol: return "protocol";
    case RefusalReason::kNotAuthorised: return "not-authorised";
    case RefusalReason::kShuttingDown: return "shutting-down";
    case RefusalReason::kRunFinished: return "run-finished";
  }
  return "unknown";
}

std::string_view to_string(RejectReason reason) {
  switch (reason) {
    case RejectReason::kLate: return "late";
    case RejectReason::kForeign: return "foreign";
    case RejectReason::kMalformed: return "malformed";
    case RejectReason::kWrongSize: return "wrong-size";
    case RejectReason::kNotFinite: return "not-finite";
    case RejectReason::kOverNorm: return "over-norm";
    case RejectReason::kDuplicate: return "duplicate";
    case RejectReason::kServerFailed: return "server-failed";
  }
  return "unknown";
}

std::string_view to_string(ThreatModel model) {
  switch (model) {
    case ThreatModel::kNone: return "off";
    case ThreatModel::kHonestButCurious: return "honest-but-curious";
    case ThreatModel::kMaliciousServer: return "malicious-server";
  }
  return "unknown";
}

std::string_view to_string(MaskCipher cipher) {
  switch (cipher) {
    case MaskCipher::kAes128Ctr: return "aes-128-ctr";
    case MaskCipher::kChaCha20: return "chacha20";
  }
  return "unknown";
}

}  // namespace covey
