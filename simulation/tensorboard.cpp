#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <covey/simulation/tensorboard.hpp>
#include <cstring>

namespace covey::simulation {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  constexpr std::uint32_t kPolynomial = 0x82F63B78;  // Castagnoli's, bits reversed
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}

template <typename T>
void append_little_endian(std::string& out, T value) {
  for (std::size_t byte = 0; byte < sizeof(T); ++byte) {
    out += static_cast<char>(value >> (8 * byte) & 0xFF);
  }
}

/// A CRC stored beside what it covers would be its own fixed point; TFRecord's mask avoids that.
std::uint32_t masked(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8; }

// Protocol buffers by hand: three messages of a few fields are less than a schema of another
// project, and what names protobuf's types lives elsewhere. Field numbers:
// tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
enum WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}

void append_key(std::string& out, std::uint32_t field, WireType type) {
  append_varint(out, field << 3 | type);
}

void append_bytes(std::string& out, std::uint32_t field, std::string_view bytes) {
  append_key(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

/// Event { double wall_time = 1; }
std::string event_at(double wall_time) {
  std::string event;
  append_key(event, 1, kFixed64);
  append_little_endian(event, std::bit_cast<std::uint64_t>(wall_time));
  return event;
}

/// Summary { repeated Value value = 1; }, Value { string tag = 1; float simple_value = 2; }
class Summary {
 public:
  void add(std::string_view tag, double figure) {
    std::string value;
    append_bytes(value, 1, tag);
    append_key(value, 2, kFixed32);
    append_little_endian(value, std::bit_cast<std::uint32_t>(static_cast<float>(figure)));
    append_bytes(bytes_, 1, value);
  }
  void add(std::string_view tag, const std::optional<double>& figure) {
    if (figure) add(tag, *figure);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

Summary summary_of(const RoundMetrics& metrics) {
  Summary summary;
  summary.add("accuracy", metrics.accuracy);
  summary.add("loss", metrics.loss);
  if (!metrics.private_figures && metrics.accepted > 0)
    summary.add("train_loss", metrics.train_loss);
  summary.add("clients/selected", metrics.selected);
  summary.add("clients/accepted", metrics.accepted);
  summary.add("clients/rejected", metrics.rejected);
  summary.add("clients/declined", metrics.declined);
  summary.add("clients/lost", metrics.lost);
  summary.add("clients/late", metrics.late);
  summary.add("bytes_up", static_cast<double>(metrics.bytes_up));
  summary.add("bytes_down", static_cast<double>(metrics.bytes_down));
  summary.add("round_s", seconds(metrics.ended - metrics.started));
  summary.add("staleness", metrics.staleness);
  summary.add("epsilon", metrics.epsilon);
  summary.add("clip_norm", metrics.clip_norm);
  summary.add("energy_j", metrics.energy_j);
  summary.add("wasted_s", metrics.wasted_s);
  // A simulator's clock begins with the run; a server's began at some time of its machine's.
  if (metrics.wall_s)
    summary.add("virtual_hours", seconds(metrics.ended.time_since_epoch()) / 3600);
  if (metrics.devices) {
    summary.add("fairness/average", metrics.devices->average);
    summary.add("fairness/worst10", metrics.devices->worst10);
    summary.add("fairness/best10", metrics.devices->best10);
    summary.add("fairness/variance", metrics.devices->variance);
  }
  return summary;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = crc_table();
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes)
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint8_t>(byte)) & 0xFF];
  return ~crc;
}

std::string tfrecord(std::string_view data) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(data.size()));
  append_little_endian(record, masked(crc32c(record)));
  record += data;
  append_little_endian(record, masked(crc32c(data)));
  return record;
}

EventFile::EventFile(std::string path, double start_s)
    : path_(std::move(path)), start_s_(start_s), file_(path_, std::ios::binary | std::ios::trunc) {}

Result<EventFile> EventFile::create(const std::string& path, double start_s) {
  EventFile file(path, start_s);
  std::string first = event_at(start_s);
  append_bytes(first, 3, "brain.Event:2");  // Event { string file_version = 3; }
  COVEY_TRY(file.write(first));
  return file;
}

Result<void> EventFile::append(const RoundMetrics& metrics) {
  const double started_s = seconds(metrics.started.time_since_epoch());
  if (!first_started_s_) first_started_s_ = started_s;
  const double since_start = seconds(metrics.ended.time_since_epoch()) - *first_started_s_;
  std::string event = event_at(start_s_ + metrics.wall_s.value_or(std::max(0.0, since_start)));
  append_key(event, 2, kVarint);  // Event { int64 step = 2; Summary summary = 5; }
  append_varint(event, value_of(metrics.round));
  append_bytes(event, 5, summary_of(metrics).bytes());
  return write(event);
}

Result<void> EventFile::write(std::string_view event) {
  const std::string record = tfrecord(event);
  file_.write(record.data(), static_cast<std::streamsize>(record.size()));
  file_.flush();
  if (!file_) return failed("cannot write " + path_ + ": " + std::strerror(errno));
  return {};
}

}  // namespace covey::simulation
