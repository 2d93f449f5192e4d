#pragma once

#include <google/protobuf/arena.h>

#include <array>
#include <covey/proto/codec.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "wire.pb.h"

/// What the two directions of the codec share: limits, the checked reading of fields, and the parts
/// that occur in several messages.
namespace covey::proto {

inline constexpr std::size_t kMaxStringBytes = 4 * 1024;
inline constexpr std::size_t kMaxStatusBytes = 256 * 1024;
inline constexpr int kMaxListItems = 1024;
inline constexpr int kMaxLayers = 256;
/// Neighbours, shares or advertisements of one secure sum: far beyond the thousand devices it is
/// made for, and the directory of so many (512 KiB) still fits a frame of 1 MiB.
inline constexpr int kMaxSumDevices = 16 * 1024;
/// A ciphertext of two shares and its tag; a share alone is smaller.
inline constexpr std::size_t kMaxSecretBytes = 256;
/// An ECDSA signature over P-256 in DER has at most 72 bytes, one of Ed25519 64.
inline constexpr std::size_t kMaxCertificateSignatureBytes = 128;
inline constexpr std::size_t kMaxSurvivorBytes = 16 * 1024;
/// Ten years of 365 days: longer than any run, and far enough from overflow to add two of them.
inline constexpr Duration kMaxDuration = std::chrono::hours(10 * 365 * 24);
/// Holds any message without lists; larger ones let the arena grow on the heap.
inline constexpr std::size_t kArenaBlockBytes = 4 * 1024;

/// A field as (is it there, its value, its name), from a generated message.
#define COVEY_FIELD(message, name) (message).has_##name(), (message).name(), #name

/// Reads fields one after the other and keeps the first thing wrong with them, so that a message is
/// read without a branch per field. After a failure values are defaults; look at `error()` at the
/// end.
class FieldReader {
 public:
  explicit FieldReader(std::string_view message) : path_(message) {}

  const std::optional<Error>& error() const { return error_; }
  void fail(std::string_view field, std::string_view problem);

  template <typename Value>
  Value value(bool present, Value value, std::string_view field) {
    if (!present) fail(field, "missing");
    return value;
  }
  /// Of a field that may be left out: a finite number in [low, high), or `fallback`.
  float number_or(float fallback, bool present, float number, std::string_view field, float low,
                  float high);
  template <typename Id>
  Id id(bool present, std::underlying_type_t<Id> number, std::string_view field) {
    return static_cast<Id>(value(present, number, field));
  }
  /// Values first..last are known (the wire's enums have no gaps).
  template <typename Enum, typename WireEnum>
  Enum known(bool present, WireEnum number, std::string_view field, Enum first, Enum last) {
    const int wire = static_cast<int>(number);
    if (!present) {
      fail(field, "missing");
    } else if (wire < static_cast<int>(first) || wire > static_cast<int>(last)) {
      fail_unknown(field, wire);
    }
    return error_ ? first : static_cast<Enum>(wire);
  }
  /// Of a field that may be left out.
  template <typename Enum, typename WireEnum>
  Enum known_or(Enum fallback, bool present, WireEnum number, std::string_view field, Enum first,
                Enum last) {
    return present ? known(present, number, field, first, last) : fallback;
  }
  std::string text(bool present, const std::string& text, std::string_view field,
                   std::size_t max_bytes = kMaxStringBytes);
  // Finite numbers that have to be there.
  double at_least_zero(bool present, double number, std::string_view field);
  double above_zero(bool present, double number, std::string_view field);
  /// In [0, 1).
  double fraction(bool present, double number, std::string_view field);
  Digest digest(bool present, const std::string& bytes, std::string_view field);
  /// Bytes of exactly this length: a key, a signature, a commitment.
  template <std::size_t N>
  std::array<std::uint8_t, N> fixed(bool present, const std::string& bytes,
                                    std::string_view field) {
    std::array<std::uint8_t, N> value{};
    if (!present) {
      fail(field, "missing");
    } else if (bytes.size() != N) {
      fail_length(field, bytes.size(), N);
    } else {
      std::memcpy(value.data(), bytes.data(), N);
    }
    return value;
  }
  std::vector<std::byte> bytes(bool present, const std::string& bytes, std::string_view field,
                               std::size_t max_bytes);
  Duration duration(bool present, std::int64_t microseconds, std::string_view field);
  std::vector<std::string> texts(const google::protobuf::RepeatedPtrField<std::string>& list,
                                 std::string_view field);
  /// Fails when the list is too long; then nothing of it is to be read.
  bool length(int items, std::string_view field, int max_items = kMaxListItems);

  /// Reads a message inside this one: `read(part)` with `field` added to the place named in errors.
  template <typename Part, typename Read>
  void part(bool present, const Part& part, std::string_view field, Read&& read) {
    if (!present) return fail(field, "missing");
    const std::size_t outer = path_.size();
    path_.append(".").append(field);
    std::forward<Read>(read)(part);
    path_.resize(outer);
  }

 private:
  void fail_unknown(std::string_view field, int value);
  void fail_length(std::string_view field, std::size_t found, std::size_t wanted);

  std::string path_;
  std::optional<Error> error_;
};

/// One envelope on its own arena, so that its parts cost no allocation each. Not movable: the
/// arena's first block lies inside.
class ArenaEnvelope {
 public:
  ArenaEnvelope();
  ArenaEnvelope(const ArenaEnvelope&) = delete;
  ArenaEnvelope& operator=(const ArenaEnvelope&) = delete;

  /// Error: not an Envelope at all, or one with no kind we know, or with a payload that its kind
  /// does not have.
  Result<void> parse(std::span<const std::byte> header, std::size_t payload_bytes);
  wire::Envelope& operator*() { return *envelope_; }
  wire::Envelope* operator->() { return envelope_; }

 private:
  alignas(std::max_align_t) char block_[kArenaBlockBytes];
  google::protobuf::Arena arena_;
  wire::Envelope* envelope_;
};

/// The name of an envelope's kind, as in wire.proto.
std::string_view kind_name(wire::Envelope::KindCase kind);
Error wrong_direction(wire::Envelope::KindCase kind, std::string_view sender);

std::vector<std::byte> serialise(const wire::Envelope& envelope);

/// A string as the wire takes it: valid UTF-8 (other bytes become '?') of at most 4 KiB, cut
/// between characters. Free text comes from operating systems and plug-ins, so it may be anything.
std::string wire_text(std::string_view text, std::size_t max_bytes = kMaxStringBytes);

void write_digest(const Digest& digest, std::string* out);
template <std::size_t N>
std::string fixed_bytes(const std::array<std::uint8_t, N>& bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), N);
}

void write(const RetryWindow& window, wire::RetryWindow* out);
RetryWindow read_retry(FieldReader& reader, const wire::RetryWindow& in);

void write(const TrainingPlan& plan, wire::TrainingPlan* out);
TrainingPlan read_plan(FieldReader& reader, const wire::TrainingPlan& in);

void write(const AdvertiseKeys& message, wire::AdvertiseKeys* out);
void write(const ShareKeys& message, wire::ShareKeys* out);
void write(const ConfirmSurvivors& message, wire::ConfirmSurvivors* out);
void write(const Unmask& message, wire::Unmask* out);
void write(const NeighbourKeys& message, wire::NeighbourKeys* out);
void write(const PeerShares& message, wire::PeerShares* out);
void write(const SurvivorSet& message, wire::SurvivorSet* out);
void write(const SurvivorConfirmations& message, wire::SurvivorConfirmations* out);

Result<ClientMessage> read_message(const wire::AdvertiseKeys& in);
Result<ClientMessage> read_message(const wire::ShareKeys& in);
Result<ClientMessage> read_message(const wire::ConfirmSurvivors& in);
Result<ClientMessage> read_message(const wire::Unmask& in);
Result<ServerMessage> read_message(const wire::NeighbourKeys& in);
Result<ServerMessage> read_message(const wire::PeerShares& in);
Result<ServerMessage> read_message(const wire::SurvivorSet& in);
Result<ServerMessage> read_message(const wire::SurvivorConfirmations& in);

void write(const BlobChunk& chunk, wire::BlobChunk* out);
Result<BlobChunk> read_chunk(const wire::BlobChunk& in, SharedBytes payload);

template <typename Message, typename Variant>
Result<Variant> finish(const FieldReader& reader, Message&& message) {
  if (reader.error()) return *reader.error();
  return Variant(std::forward<Message>(message));
}

}  // namespace covey::proto
