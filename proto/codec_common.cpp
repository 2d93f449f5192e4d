#include "codec_common.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace covey::proto {
namespace {

/// Bytes of the UTF-8 character at the start of `text` (Unicode 15, Table 3-7); 0 when it is none.
std::size_t utf8_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && at(1) < 0xa0) || (lead == 0xf0 && at(1) < 0x90);
  const bool surrogate = lead == 0xed && at(1) > 0x9f;
  const bool past_the_end = lead == 0xf4 && at(1) > 0x8f;
  return overlong || surrogate || past_the_end ? 0 : length;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace

void FieldReader::fail(std::string_view field, std::string_view problem) {
  if (!error_) error_ = malformed(fmt::format("{}.{}: {}", path_, field, problem));
}

void FieldReader::fail_unknown(std::string_view field, int value) {
  fail(field, fmt::format("unknown value {}", value));
}

float FieldReader::number_or(float fallback, bool present, float number, std::string_view field,
                             float low, float high) {
  if (!present) return fallback;
  if (number >= low && number < high) return number;
  fail(field, fmt::format("{} is not in [{}, {})", number, low, high));
  return fallback;
}

std::string FieldReader::text(bool present, const std::string& text, std::string_view field,
                              std::size_t max_bytes) {
  if (!present) {
    fail(field, "missing");
    return {};
  }
  if (text.size() > max_bytes) {
    fail(field, fmt::format("{} bytes, at most {} are allowed", text.size(), max_bytes));
    return {};
  }
  if (!is_utf8(text)) fail(field, "not UTF-8");
  return text;
}

Digest FieldReader::digest(bool present, const std::string& bytes, std::string_view field) {
  Digest digest;
  if (!present) {
    fail(field, "missing");
  } else if (bytes.size() != digest.bytes.size()) {
    fail(field,
         fmt::format("a digest of {} bytes, it must have {}", bytes.size(), digest.bytes.size()));
  } else {
    std::memcpy(digest.bytes.data(), bytes.data(), digest.bytes.size());
  }
  return digest;
}

double FieldReader::at_least_zero(bool present, double number, std::string_view field) {
  if (!present) {
    fail(field, "missing");
  } else if (!(std::isfinite(number) && number >= 0)) {
    fail(field, fmt::format("{} is not a finite number of at least 0", number));
  }
  return error_ ? 0 : number;
}

double FieldReader::above_zero(bool present, double number, std::string_view field) {
  if (!present) {
    fail(field, "missing");
  } else if (!(std::isfinite(number) && number > 0)) {
    fail(field, fmt::format("{} is not a finite number above 0", number));
  }
  return error_ ? 0 : number;
}

double FieldReader::fraction(bool present, double number, std::string_view field) {
  if (!present) {
    fail(field, "missing");
  } else if (!(number >= 0 && number < 1)) {
    fail(field, fmt::format("{} is not in [0, 1)", number));
  }
  return error_ ? 0 : number;
}

void FieldReader::fail_length(std::string_view field, std::size_t found, std::size_t wanted) {
  fail(field, fmt::format("{} bytes, it must have {}", found, wanted));
}

std::vector<std::byte> FieldReader::bytes(bool present, const std::string& bytes,
                                          std::string_view field, std::size_t max_bytes) {
  if (!present) {
    fail(field, "missing");
    return {};
  }
  if (bytes.size() > max_bytes) {
    fail(field, fmt::format("{} bytes, at most {} are allowed", bytes.size(), max_bytes));
    return {};
  }
  const auto view = std::as_bytes(std::span(bytes));
  return {view.begin(), view.end()};
}

Duration FieldReader::duration(bool present, std::int64_t microseconds, std::string_view field) {
  if (!present) fail(field, "missing");
  if (microseconds > kMaxDuration.count() || microseconds < -kMaxDuration.count()) {
    fail(field, fmt::format("{} microseconds is more than ten years", microseconds));
    return {};
  }
  return Duration(microseconds);
}

bool FieldReader::length(int items, std::string_view field, int max_items) {
  if (items > max_items) {
    fail(field, fmt::format("{} items, at most {} are allowed", items, max_items));
  }
  return items <= max_items;
}

std::vector<std::string> FieldReader::texts(
    const google::protobuf::RepeatedPtrField<std::string>& list, std::string_view field) {
  std::vector<std::string> result;
  if (!length(list.size(), field)) return result;
  result.reserve(static_cast<std::size_t>(list.size()));
  for (const std::string& item : list) result.push_back(text(true, item, field));
  return result;
}

namespace {

google::protobuf::ArenaOptions arena_options(char* block, std::size_t bytes) {
  google::protobuf::ArenaOptions options;
  options.initial_block = block;
  options.initial_block_size = bytes;
  return options;
}

}  // namespace

ArenaEnvelope::ArenaEnvelope()
    : arena_(arena_options(block_, sizeof block_)),
      envelope_(google::protobuf::Arena::CreateMessage<wire::Envelope>(&arena_)) {}

Result<void> ArenaEnvelope::parse(std::span<const std::byte> header, std::size_t payload_bytes) {
  if (header.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()) ||
      !envelope_->ParseFromArray(header.data(), static_cast<int>(header.size()))) {
    return malformed(fmt::format("header: {} bytes that are not an envelope", header.size()));
  }
  const auto kind = envelope_->kind_case();
  if (kind == wire::Envelope::KIND_NOT_SET) {
    return malformed("envelope.kind: missing, or of a kind this version does not know");
  }
  if (payload_bytes != 0 && kind != wire::Envelope::kBlobChunk) {
    return malformed(fmt::format("{}: has a payload of {} bytes, only blob_chunk carries one",
                                 kind_name(kind), payload_bytes));
  }
  return {};
}

std::string_view kind_name(wire::Envelope::KindCase kind) {
  switch (kind) {
    case wire::Envelope::kHello:
      return "hello";
    case wire::Envelope::kCheckIn:
      return "check_in";
    case wire::Envelope::kBlobRequest:
      return "blob_request";
    case wire::Envelope::kProgress:
      return "progress";
    case wire::Envelope::kReport:
      return "report";
    case wire::Envelope::kDecline:
      return "decline";
    case wire::Envelope::kStatusRequest:
      return "status_request";
    case wire::Envelope::kBlobChunk:
      return "blob_chunk";
    case wire::Envelope::kWelcome:
      return "welcome";
    case wire::Envelope::kWaiting:
      return "waiting";
    case wire::Envelope::kAssignment:
      return "assignment";
    case wire::Envelope::kUploadGrant:
      return "upload_grant";
    case wire::Envelope::kProgressReply:
      return "progress_reply";
    case wire::Envelope::kReportAccepted:
      return "report_accepted";
    case wire::Envelope::kReportRejected:
      return "report_rejected";
    case wire::Envelope::kRetryLater:
      return "retry_later";
    case wire::Envelope::kRefusal:
      return "refusal";
    case wire::Envelope::kBlobMissing:
      return "blob_missing";
    case wire::Envelope::kRoundOver:
      return "round_over";
    case wire::Envelope::kStatusReply:
      return "status_reply";
    case wire::Envelope::kAdvertiseKeys:
      return "advertise_keys";
    case wire::Envelope::kShareKeys:
      return "share_keys";
    case wire::Envelope::kConfirmSurvivors:
      return "confirm_survivors";
    case wire::Envelope::kUnmask:
      return "unmask";
    case wire::Envelope::kNeighbourKeys:
      return "neighbour_keys";
    case wire::Envelope::kPeerShares:
      return "peer_shares";
    case wire::Envelope::kSurvivorSet:
      return "survivor_set";
    case wire::Envelope::kSurvivorConfirmations:
      return "survivor_confirmations";
    case wire::Envelope::KIND_NOT_SET:
      break;
  }
  return "nothing";
}

Error wrong_direction(wire::Envelope::KindCase kind, std::string_view sender) {
  return malformed(
      fmt::format("envelope.kind: {} is not for a {} to send", kind_name(kind), sender));
}

std::vector<std::byte> serialise(const wire::Envelope& envelope) {
  std::vector<std::byte> bytes(envelope.ByteSizeLong());
  // The sizes were cached by the line above; the buffer is exactly as large as needed.
  envelope.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(bytes.data()));
  return bytes;
}

std::string wire_text(std::string_view text, std::size_t max_bytes) {
  std::string result;
  result.reserve(std::min(text.size(), max_bytes));
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const std::size_t step = std::max<std::size_t>(length, 1);
    if (result.size() + step > max_bytes) break;
    result += length == 0 ? std::string_view("?") : text.substr(0, length);
    text.remove_prefix(step);
  }
  return result;
}

void write_digest(const Digest& digest, std::string* out) {
  out->assign(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
}

void write(const RetryWindow& window, wire::RetryWindow* out) {
  out->set_delay_min_us(window.delay_min.count());
  out->set_delay_max_us(window.delay_max.count());
}

RetryWindow read_retry(FieldReader& reader, const wire::RetryWindow& in) {
  RetryWindow window{reader.duration(COVEY_FIELD(in, delay_min_us)),
                     reader.duration(COVEY_FIELD(in, delay_max_us))};
  if (window.delay_min > window.delay_max) {
    reader.fail("delay_max_us", "smaller than delay_min_us");
  }
  return window;
}

void write(const BlobChunk& chunk, wire::BlobChunk* out) {
  write_digest(chunk.blob, out->mutable_blob());
  out->set_offset(chunk.offset);
}

Result<BlobChunk> read_chunk(const wire::BlobChunk& in, SharedBytes payload) {
  FieldReader reader("blob_chunk");
  BlobChunk chunk{reader.digest(COVEY_FIELD(in, blob)), reader.value(COVEY_FIELD(in, offset)), {}};
  if (payload.empty()) reader.fail("payload", "missing");
  if (chunk.offset > std::numeric_limits<std::uint64_t>::max() - payload.size()) {
    reader.fail("offset", fmt::format("{} bytes from there on is past any blob", payload.size()));
  }
  if (reader.error()) return *reader.error();
  chunk.payload = std::move(payload);
  return chunk;
}

}  // namespace covey::proto
