#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <covey/client/spool_record.hpp>
#include <string_view>
#include <type_traits>

namespace covey::client {
namespace {

constexpr std::string_view kStateMagic = "covey-st";
constexpr std::string_view kJournalMagic = "covey-dl";
constexpr std::uint32_t kVersion = 2;
/// Far above any plan (the codec takes 4 KiB of text and 256 layers).
constexpr std::size_t kMostAssignmentBytes = 1 << 20;
constexpr std::size_t kMostScalars = 1024;                          // as the codec's lists
// So that sizes do not overflow.
constexpr std::uint64_t kMostCoordinates = std::uint64_t{1} << (sizeof(std::size_t) < 8 ? 26 : 40);
constexpr std::size_t kDigestBytes = 32;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// Little-endian, in order.
class Writer {
 public:
  void raw(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  template <typename T>
  void number(T value) {
    if constexpr (std::is_enum_v<T>) {
      number(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_floating_point_v<T>) {
      number(std::bit_cast<std::uint64_t>(value));
    } else {
      auto rest = static_cast<std::make_unsigned_t<T>>(value);
      for (std::size_t i = 0; i < sizeof(T); ++i) {
        out_.push_back(static_cast<std::byte>(rest & 0xff));
        if constexpr (sizeof(T) > 1) rest = static_cast<decltype(rest)>(rest >> 8);
      }
    }
  }
  void flag(bool value) { out_.push_back(static_cast<std::byte>(value)); }
  void value(bool b) { flag(b); }
  void value(const Digest& digest) { raw(std::as_bytes(std::span(digest.bytes))); }
  void value(const BlobName& name) {
    value(name.digest);
    number(name.size);
  }
  void value(const RoundOfRun& round) {
    number(round.first);
    number(round.second);
  }
  void value(const AggregationRound& round) {
    number(round.run);
    number(round.round);
    raw(std::as_bytes(std::span(round.id.bytes)));
  }
  void value(WallTime time) { number(time.time_since_epoch().count()); }
  void value(RoundNumber round) { number(round); }
  void value(const privacy::PackedFormat& format) {
    number(format.sum_bits);
    number(static_cast<std::uint64_t>(format.coordinates));
  }
  template <typename T>
  void optional(const std::optional<T>& item) {
    flag(item.has_value());
    if (item) value(*item);
  }
  template <typename T>
  void list(const std::vector<T>& items) {
    number(static_cast<std::uint32_t>(items.size()));
    for (const T& item : items) value(item);
  }
  void value(const StateRecord::Trained& trained);
  void value(const StateRecord::Task& task);

  std::vector<std::byte> take() { return std::move(out_); }
  std::span<const std::byte> written() const { return out_; }

 private:
  std::vector<std::byte> out_;
};

/// The inverse. After the first thing that does not fit, everything reads as zero and `ok` is
/// false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && rest_.empty(); }
  void fail() { ok_ = false; }
  std::span<const std::byte> raw(std::size_t count) {
    if (!ok_ || count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  template <typename T>
  T number() {
    if constexpr (std::is_enum_v<T>) {
      return static_cast<T>(number<std::underlying_type_t<T>>());
    } else if constexpr (std::is_floating_point_v<T>) {
      return std::bit_cast<T>(number<std::uint64_t>());
    } else {
      std::make_unsigned_t<T> value = 0;
      const auto bytes = raw(sizeof(T));
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        value = static_cast<decltype(value)>(
            value |
            static_cast<decltype(value)>(static_cast<decltype(value)>(bytes[i]) << (8 * i)));
      }
      return static_cast<T>(value);
    }
  }
  bool flag() {
    const auto value = number<std::uint8_t>();
    if (value > 1) fail();
    return value == 1;
  }
  template <std::size_t N>
  void array(std::array<std::uint8_t, N>& out) {
    const auto bytes = raw(N);
    std::ranges::transform(bytes, out.begin(),
                           [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
  }
  void value(Digest& digest) { array(digest.bytes); }
  void value(BlobName& name) {
    value(name.digest);
    name.size = number<std::uint64_t>();
  }
  void value(RoundOfRun& round) {
    round.first = number<RunId>();
    round.second = number<RoundNumber>();
  }
  void value(AggregationRound& round) {
    round.run = number<RunId>();
    round.round = number<RoundNumber>();
    array(round.id.bytes);
  }
  /// A moment that no clock shows paces nothing (Spool::restore), and costs no update.
  void value(WallTime& time) {
    time = plausible(WallTime(std::chrono::microseconds(number<std::int64_t>())));
  }
  void value(RoundNumber& round) { round = number<RoundNumber>(); }
  void value(privacy::PackedFormat& format) {
    format.sum_bits = number<std::uint32_t>();
    const auto coordinates = number<std::uint64_t>();
    format.coordinates = static_cast<std::size_t>(coordinates);
    if (format.sum_bits < privacy::PackedFormat::kMinSumBits ||
        format.sum_bits > privacy::PackedFormat::kMaxSumBits || coordinates == 0 ||
        coordinates > kMostCoordinates) {
      fail();
    }
  }
  template <typename T>
  void optional(std::optional<T>& item) {
    if (flag()) value(item.emplace(T{}));
  }
  template <typename T>
  void list(std::vector<T>& items, std::size_t most) {
    const auto count = number<std::uint32_t>();
    if (count > most) return fail();
    for (std::uint32_t i = 0; ok_ && i < count; ++i) value(items.emplace_back());
  }
  void value(StateRecord::Trained& trained);
  void value(StateRecord::Task& task);

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

void Writer::value(const StateRecord::Trained& trained) {
  value(trained.update);
  value(trained.announced);
  number(trained.weight);
  number(static_cast<std::uint32_t>(trained.scalars.size()));
  for (const double scalar : trained.scalars) number(scalar);
  number(trained.num_examples);
  number(trained.steps);
  number(trained.train_loss);
  optional(trained.packed);
  number(trained.clipped_coordinates);
  optional(trained.residual);
}

void Reader::value(StateRecord::Trained& trained) {
  value(trained.update);
  value(trained.announced);
  trained.weight = number<double>();
  const auto scalars = number<std::uint32_t>();
  if (scalars > kMostScalars) return fail();
  for (std::uint32_t i = 0; i < scalars; ++i) trained.scalars.push_back(number<double>());
  trained.num_examples = number<std::uint64_t>();
  trained.steps = number<std::uint32_t>();
  trained.train_loss = number<double>();
  optional(trained.packed);
  trained.clipped_coordinates = number<std::uint64_t>();
  optional(trained.residual);
}

void Writer::value(const StateRecord::Task& task) {
  number(static_cast<std::uint32_t>(task.assignment.size()));
  raw(task.assignment);
  optional(task.report_by);
  number(task.train_time.count());
  number(task.starts);
  flag(task.reported);
  flag(task.decided);
  optional(task.trained);
}

void Reader::value(StateRecord::Task& task) {
  const auto size = number<std::uint32_t>();
  if (size > kMostAssignmentBytes) return fail();
  const auto assignment = raw(size);
  task.assignment.assign(assignment.begin(), assignment.end());
  optional(task.report_by);
  task.train_time = Duration(number<Duration::rep>());
  if (task.train_time < Duration::zero()) fail();
  task.starts = number<std::uint8_t>();
  task.reported = flag();
  task.decided = flag();
  optional(task.trained);
}

/// The first bytes of a hash: against accidents, so 64 bits do.
std::uint64_t short_hash(std::span<const std::byte> bytes) {
  const Digest digest = sha256(bytes);
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value |= std::uint64_t{digest.bytes[i]} << (8 * i);
  return value;
}

}  // namespace

WallTime plausible(WallTime time) {
  return std::clamp(time, kEarliestWallTime, kLatestWallTime);
}

std::vector<std::byte> serialise(const StateRecord& record) {
  Writer out;
  out.raw(bytes_of(kStateMagic));
  out.number(kVersion);
  out.number(record.client);
  out.value(record.written);
  out.number(record.draws);
  out.number(record.violations);
  out.number(record.declines);
  out.optional(record.last_accepted);
  out.list(record.revealed);
  out.list(record.keyed);
  out.optional(record.released);
  out.optional(record.not_before);
  out.number(record.residual.run);
  out.optional(record.residual.now);
  out.optional(record.residual.before);
  out.optional(record.residual.round);
  out.optional(record.model);
  out.optional(record.download);
  out.optional(record.task);
  const Digest digest = sha256(out.written());
  out.value(digest);
  return out.take();
}

Result<StateRecord> parse_state(std::span<const std::byte> bytes) {
  if (bytes.size() < kStateMagic.size() + 4 + kDigestBytes ||
      !std::ranges::equal(bytes.first(kStateMagic.size()), bytes_of(kStateMagic))) {
    return malformed("it is not such a file, or torn");
  }
  Reader in(bytes.first(bytes.size() - kDigestBytes));
  static_cast<void>(in.raw(kStateMagic.size()));
  if (const auto version = in.number<std::uint32_t>(); version != kVersion) {
    return malformed(fmt::format("it is of version {}, this program reads {}", version, kVersion));
  }
  const Digest digest = sha256(bytes.first(bytes.size() - kDigestBytes));
  if (!std::ranges::equal(bytes.last(kDigestBytes), std::as_bytes(std::span(digest.bytes)))) {
    return malformed("its checksum is wrong");
  }
  StateRecord record;
  record.client = in.number<ClientId>();
  in.value(record.written);
  record.draws = in.number<std::uint32_t>();
  record.violations = in.number<std::uint8_t>();
  record.declines = in.number<std::uint8_t>();
  in.optional(record.last_accepted);
  in.list(record.revealed, kMostRevealedRuns);
  in.list(record.keyed, kMostKeyedSums);
  in.optional(record.released);
  in.optional(record.not_before);
  record.residual.run = in.number<RunId>();
  in.optional(record.residual.now);
  in.optional(record.residual.before);
  in.optional(record.residual.round);
  in.optional(record.model);
  in.optional(record.download);
  in.optional(record.task);
  if (!in.at_end()) return malformed("its fields do not fit");
  return record;
}

// ---- DownloadJournal

// Header: magic (8), version (4), zero (4), digest (32), size (8), hash of those (8).
std::vector<std::byte> DownloadJournal::header(const BlobName& blob) {
  Writer out;
  out.raw(bytes_of(kJournalMagic));
  out.number(kVersion);
  out.number(std::uint32_t{0});
  out.value(blob);
  out.number(short_hash(out.written()));
  return out.take();
}

// Entry: the piece's end in the blob (8), its hash (16), hash of both and of the entry's number
// (8).
std::vector<std::byte> DownloadJournal::entry(std::uint64_t index, std::uint64_t offset,
                                              std::span<const std::byte> piece) {
  Writer out;
  out.number(offset + piece.size());
  const Digest digest = sha256(piece);
  out.raw(std::as_bytes(std::span(digest.bytes)).first(16));
  Writer sealed;
  sealed.number(index);
  sealed.raw(out.written());
  out.number(short_hash(sealed.written()));
  return out.take();
}

DownloadJournal::Intact DownloadJournal::check(const BlobName& blob,
                                               std::span<const std::byte> journal,
                                               std::span<const std::byte> data) {
  Intact intact;
  if (journal.size() < kHeaderBytes ||
      !std::ranges::equal(journal.first(kHeaderBytes), header(blob))) {
    return intact;
  }
  journal = journal.subspan(kHeaderBytes);
  const std::uint64_t most = std::min<std::uint64_t>(data.size(), blob.size);
  for (; journal.size() >= kEntryBytes; journal = journal.subspan(kEntryBytes)) {
    const auto end = Reader(journal).number<std::uint64_t>();
    if (end <= intact.bytes || end > most) break;
    const auto piece = data.subspan(static_cast<std::size_t>(intact.bytes),
                                    static_cast<std::size_t>(end - intact.bytes));
    if (!std::ranges::equal(journal.first(kEntryBytes), entry(intact.entries, intact.bytes, piece)))
      break;
    intact = {end, intact.entries + 1};
  }
  return intact;
}

}  // namespace covey::client
