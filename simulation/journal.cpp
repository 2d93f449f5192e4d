#include "journal.hpp"

#include <fmt/format.h>

#include <cstring>

namespace covey::simulation {
namespace {

constexpr std::string_view kMagic = "coveyjn2";
constexpr std::size_t kHeader = kMagic.size() + 32;  // and the run
constexpr std::size_t kBlockHeader = 4 + 32;         // payload's length, chain behind it

Digest chain_behind(const Digest& chain, std::span<const std::byte> payload) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(chain.bytes)));
  hash.update(payload);
  return hash.finish();
}

void write_privacy(const server::PrivacyStatus& status, ByteWriter& out) {
  out.number(static_cast<std::uint64_t>(status.plan.clip));
  out.real(status.plan.clip_norm);
  out.number(static_cast<std::uint64_t>(status.plan.noise));
  out.real(status.plan.noise_stddev);
  out.real(status.spent.epsilon);
  out.real(status.spent.epsilon_next);
  out.real(status.spent.delta);
  out.real(status.noise_multiplier);
  out.flag(status.allows_another);
  out.text(status.guarantee);
}

template <typename Enum>
Enum read_enum(ByteReader& in, Enum last) {
  const std::uint64_t value = in.number();
  if (value > static_cast<std::uint64_t>(last)) in.fail();
  return in.ok() ? static_cast<Enum>(value) : Enum{};
}

server::PrivacyStatus read_privacy(ByteReader& in) {
  server::PrivacyStatus status;
  status.plan.clip = read_enum(in, ClipKind::kAdaptive);
  status.plan.clip_norm = in.real();
  status.plan.noise = read_enum(in, DeviceNoise::kSkellam);
  status.plan.noise_stddev = in.real();
  status.spent.epsilon = in.real();
  status.spent.epsilon_next = in.real();
  status.spent.delta = in.real();
  status.noise_multiplier = in.real();
  status.allows_another = in.flag();
  status.guarantee = in.text();
  return status;
}

ClientId read_client(ByteReader& in) { return static_cast<ClientId>(in.number()); }

RoundNumber read_round(ByteReader& in) {
  const std::uint64_t value = in.number();
  if (value > UINT32_MAX) in.fail();
  return static_cast<RoundNumber>(value);
}

std::uint32_t read_u32(ByteReader& in) { return value_of(read_round(in)); }

std::optional<std::string> read_failure(ByteReader& in) {
  if (!in.flag()) return std::nullopt;
  return in.text();
}

void write_failure(const std::optional<std::string>& failure, ByteWriter& out) {
  out.flag(failure.has_value());
  if (failure) out.text(*failure);
}

// ---- one record

void write(const TrainedRecord& record, ByteWriter& out) {
  out.number(record.training);
  out.number(value_of(record.client));
  out.number(value_of(record.round));
  write_failure(record.failure, out);
  if (record.failure) return;
  out.number(record.update_bytes);
  out.real(record.weight);
  out.number(record.scalars.size());
  for (const double scalar : record.scalars) out.real(scalar);
  out.number(record.num_examples);
  out.number(record.steps);
  out.real(record.train_loss);
  out.number(record.clipped_coordinates);
  out.flag(record.has_residual);
  out.flag(record.packed.has_value());
  if (!record.packed) return;
  out.number(record.packed->sum_bits);
  out.number(record.packed->coordinates);
}

void read(ByteReader& in, TrainedRecord& record) {
  record.training = in.number();
  record.client = read_client(in);
  record.round = read_round(in);
  record.failure = read_failure(in);
  if (record.failure) return;
  record.update_bytes = in.number();
  record.weight = in.real();
  record.scalars.resize(in.count(sizeof(double)));
  for (double& scalar : record.scalars) scalar = in.real();
  record.num_examples = in.number();
  record.steps = read_u32(in);
  record.train_loss = in.real();
  record.clipped_coordinates = in.number();
  record.has_residual = in.flag();
  if (!in.flag()) return;
  record.packed.emplace();
  record.packed->sum_bits = read_u32(in);
  record.packed->coordinates = static_cast<std::size_t>(in.number());
}

void write(const JudgedRecord& record, ByteWriter& out) {
  out.number(value_of(record.client));
  out.number(value_of(record.round));
  out.number(record.rejection ? static_cast<std::uint64_t>(record.rejection->first) : 0);
  if (record.rejection) out.text(record.rejection->second);
}

void read(ByteReader& in, JudgedRecord& record) {
  record.client = read_client(in);
  record.round = read_round(in);
  const auto reason = read_enum(in, RejectReason::kServerFailed);
  if (reason != RejectReason{}) record.rejection.emplace(reason, in.text());
}

void write(const AppliedRecord& record, ByteWriter& out) {
  out.number(value_of(record.round));
  write_failure(record.failure, out);
  out.number(record.parameter_bytes);
  out.number(record.sent.size());
  for (const auto& sent : record.sent) {
    out.number(sent.bytes);
    out.digest(sent.digest);
  }
  out.flag(record.privacy.has_value());
  if (record.privacy) write_privacy(*record.privacy, out);
  out.flag(record.figures.has_value());
  if (record.figures) {
    out.number(record.figures->examples);
    out.number(record.figures->steps);
    out.real(record.figures->train_loss);
    out.number(record.figures->clipped_coordinates);
    out.number(record.figures->clipped_weights);
    out.real(record.figures->rounding_error);
    out.real(record.figures->clip);
  }
  out.flag(record.culprit.has_value());
  if (record.culprit) out.number(value_of(*record.culprit));
}

void read(ByteReader& in, AppliedRecord& record) {
  record.round = read_round(in);
  record.failure = read_failure(in);
  record.parameter_bytes = in.number();
  record.sent.resize(in.count(sizeof(Digest)));
  for (auto& sent : record.sent) {
    sent.bytes = in.number();
    sent.digest = in.digest();
  }
  if (in.flag()) record.privacy = read_privacy(in);
  if (in.flag()) {
    server::SecureSumFigures& figures = record.figures.emplace();
    figures.examples = in.number();
    figures.steps = in.number();
    figures.train_loss = in.real();
    figures.clipped_coordinates = in.number();
    figures.clipped_weights = read_u32(in);
    figures.rounding_error = in.real();
    figures.clip = in.real();
  }
  if (in.flag()) record.culprit = read_client(in);
}

void write(const EvaluatedRecord& record, ByteWriter& out) {
  out.number(value_of(record.round));
  out.real(record.accuracy);
  out.real(record.loss);
}

void read(ByteReader& in, EvaluatedRecord& record) {
  record.round = read_round(in);
  record.accuracy = in.real();
  record.loss = in.real();
}

void write(const PublishedRecord& record, ByteWriter& out) {
  out.number(value_of(record.round));
  out.real(record.wall_s);
  out.flag(record.devices.has_value());
  if (!record.devices) return;
  out.number(record.devices->devices);
  out.real(record.devices->average);
  out.real(record.devices->worst10);
  out.real(record.devices->best10);
  out.real(record.devices->variance);
}

void read(ByteReader& in, PublishedRecord& record) {
  record.round = read_round(in);
  record.wall_s = in.real();
  if (!in.flag()) return;
  FairnessFigures& devices = record.devices.emplace();
  devices.devices = read_u32(in);
  devices.average = in.real();
  devices.worst10 = in.real();
  devices.best10 = in.real();
  devices.variance = in.real();
}

template <typename Kind>
std::optional<Record> read_as(ByteReader& in) {
  Kind record;
  read(in, record);
  if (!in.ok()) return std::nullopt;
  return Record(std::move(record));
}

template <std::size_t... Index>
std::optional<Record> read_kind(std::uint64_t kind, ByteReader& in, std::index_sequence<Index...>) {
  std::optional<Record> record;
  ((kind == Index ? void(record = read_as<std::variant_alternative_t<Index, Record>>(in)) : void()),
   ...);
  return record;
}

struct Describe {
  std::string operator()(const TrainedRecord& r) const {
    return fmt::format("training {} of device {} in round {}", r.training, value_of(r.client),
                       value_of(r.round));
  }
  std::string operator()(const JudgedRecord& r) const {
    return fmt::format("the update of device {} in round {}", value_of(r.client),
                       value_of(r.round));
  }
  std::string operator()(const AppliedRecord& r) const {
    return fmt::format("the sum of round {}", value_of(r.round));
  }
  std::string operator()(const EvaluatedRecord& r) const {
    return fmt::format("the evaluation of round {}", value_of(r.round));
  }
  std::string operator()(const PublishedRecord& r) const {
    return fmt::format("the metrics of round {}", value_of(r.round));
  }
};

Error damaged(const std::string& path, const std::string& how) {
  return malformed(path + " is damaged (" + how + "): this run cannot go on; run it again");
}

}  // namespace

std::string describe(const Record& record) { return std::visit(Describe{}, record); }

void encode(const Record& record, ByteWriter& out) {
  out.number(record.index());
  std::visit([&out](const auto& r) { write(r, out); }, record);
}

std::optional<Record> decode_record(ByteReader& in) {
  const std::uint64_t kind = in.number();
  if (!in.ok()) return std::nullopt;
  return read_kind(kind, in, std::make_index_sequence<std::variant_size_v<Record>>());
}

// ---- the file

Result<JournalWriter> JournalWriter::create(const std::string& path, const Digest& run) {
  COVEY_ASSIGN(auto file, FileHandle::open_for_writing(path, true));
  ByteWriter header;
  header.raw(std::as_bytes(std::span(kMagic)));
  header.digest(run);
  const auto written = file.write(header.bytes());
  if (!written.ok()) return with_context(path, written.error());
  return JournalWriter(path, std::move(file), {kHeader, run});
}

Result<JournalWriter> JournalWriter::reopen(const std::string& path,
                                            const JournalPosition& position) {
  COVEY_ASSIGN(auto file, FileHandle::open_for_writing(path, false));
  const auto cut = file.cut(position.length);
  if (!cut.ok()) return with_context(path, cut.error());
  return JournalWriter(path, std::move(file), position);
}

Result<JournalPosition> JournalWriter::flush() {
  if (pending_.empty()) return position_;
  const auto payload = pending_.bytes();
  if (payload.size() > UINT32_MAX) return failed(path_ + ": more than 4 GB between two snapshots");
  const auto length = static_cast<std::uint32_t>(payload.size());
  JournalPosition behind{position_.length + kBlockHeader + length,
                         chain_behind(position_.chain, payload)};
  ByteWriter header;
  header.raw(std::as_bytes(std::span(&length, 1)));
  header.digest(behind.chain);
  for (const auto bytes : {header.bytes(), payload}) {
    if (auto written = file_.write(bytes); !written.ok())
      return with_context(path_, written.error());
  }
  if (auto synced = file_.sync(); !synced.ok()) return with_context(path_, synced.error());
  pending_.clear();
  position_ = behind;
  return position_;
}

Result<JournalReader> JournalReader::open(const std::string& path, const Digest& run,
                                          const JournalPosition& position) {
  COVEY_ASSIGN(auto bytes, read_whole_file(path));
  if (!bytes) return not_found("no " + path + ", which the snapshot beside it needs; run it again");
  JournalReader reader;
  reader.path_ = path;
  reader.bytes_ = std::move(*bytes);
  if (reader.bytes_.size() < position.length || position.length < kHeader) {
    return damaged(path,
                   fmt::format("{} bytes of {} are there", reader.bytes_.size(), position.length));
  }
  reader.bytes_.resize(
      static_cast<std::size_t>(position.length));  // behind it nothing was promised
  const std::span<const std::byte> all(reader.bytes_);
  if (std::memcmp(all.data(), kMagic.data(), kMagic.size()) != 0)
    return damaged(path, "no journal");
  if (std::memcmp(all.data() + kMagic.size(), run.bytes.data(), run.bytes.size()) != 0) {
    return invalid_argument(path + " is of another run, or of another run.toml");
  }
  Digest chain = run;
  for (std::size_t at = kHeader; at < all.size();) {
    std::uint32_t length = 0;
    if (all.size() - at < kBlockHeader) return damaged(path, "a block is cut off");
    std::memcpy(&length, all.data() + at, sizeof length);
    const std::size_t begin = at + kBlockHeader;
    if (length > all.size() - begin) return damaged(path, "a block is cut off");
    chain = chain_behind(chain, all.subspan(begin, length));
    if (std::memcmp(all.data() + at + sizeof length, chain.bytes.data(), chain.bytes.size()) != 0) {
      return damaged(path, fmt::format("the block at byte {} has another content", at));
    }
    reader.blocks_.emplace_back(begin, begin + length);
    at = begin + length;
  }
  if (chain != position.chain) return damaged(path, "it is not the snapshot's");
  if (!reader.blocks_.empty()) reader.at_ = reader.blocks_.front().first;
  return reader;
}

Result<std::optional<Record>> JournalReader::next() {
  if (at_end()) return std::optional<Record>();
  const std::size_t end = blocks_[block_].second;
  ByteReader in(std::span<const std::byte>(bytes_).subspan(at_, end - at_));
  auto record = decode_record(in);
  if (!record) return damaged(path_, fmt::format("no record at byte {}", at_));
  at_ = end - in.left();
  if (at_ == end && ++block_ < blocks_.size()) at_ = blocks_[block_].first;
  return record;
}

}  // namespace covey::simulation
