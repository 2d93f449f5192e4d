#include "rank_messages.hpp"

#include <covey/proto/codec.hpp>
#include <cstring>
#include <optional>
#include <utility>

#include "durable_file.hpp"

namespace covey::simulation {
namespace {

enum class Ending : std::uint8_t { kUpdate = 0, kError = 1, kCancelled = 2 };

std::vector<std::byte> bytes_of(const ByteWriter& writer) {
  return {writer.bytes().begin(), writer.bytes().end()};
}

Error not_ours(const char* what) {
  return malformed(std::string(what) + " from another rank does not parse");
}

/// A message with a large payload: the payload, the header, and the header's length. What receives
/// it cuts the rest off and has the payload in a buffer of its own, without a copy.
std::vector<std::byte> join(std::span<const std::byte> payload, const ByteWriter& header) {
  const auto length = static_cast<std::uint32_t>(header.bytes().size());
  const auto tail = std::as_bytes(std::span(&length, 1));
  std::vector<std::byte> message;
  message.reserve(payload.size() + length + tail.size());
  message.insert(message.end(), payload.begin(), payload.end());
  message.insert(message.end(), header.bytes().begin(), header.bytes().end());
  message.insert(message.end(), tail.begin(), tail.end());
  return message;
}

/// Where the header begins; nothing: there is none.
std::optional<std::size_t> header_begin(std::span<const std::byte> message) {
  std::uint32_t length = 0;
  if (message.size() < sizeof length) return std::nullopt;
  const std::size_t end = message.size() - sizeof length;
  std::memcpy(&length, message.data() + end, sizeof length);
  if (length > end) return std::nullopt;
  return end - length;
}

std::span<const std::byte> header_of(std::span<const std::byte> message, std::size_t begin) {
  return message.subspan(begin, message.size() - sizeof(std::uint32_t) - begin);
}

SharedBytes payload_of(std::vector<std::byte> message, std::size_t header) {
  message.resize(header);
  return SharedBytes(std::move(message));
}

std::vector<std::byte> joined(std::span<const std::byte> first, std::span<const std::byte> second) {
  std::vector<std::byte> both;
  both.reserve(first.size() + second.size());
  both.insert(both.end(), first.begin(), first.end());
  both.insert(both.end(), second.begin(), second.end());
  return both;
}

/// The last `size` bytes in front of the header, as a buffer of their own; `begin` then stands in
/// front of them.
std::optional<SharedBytes> cut_tail(std::span<const std::byte> message, std::size_t& begin,
                                    std::uint64_t size) {
  if (size > begin) return std::nullopt;
  begin -= static_cast<std::size_t>(size);
  const auto tail = message.subspan(begin, static_cast<std::size_t>(size));
  return SharedBytes(std::vector<std::byte>(tail.begin(), tail.end()));
}

void blob(ByteWriter& writer, std::span<const std::byte> bytes) {
  writer.number(bytes.size());
  writer.raw(bytes);
}

struct ControlWriter {
  ByteWriter& writer;
  void operator()(const RankHello& hello) const {
    writer.text(hello.host);
    writer.number(hello.process);
    writer.number(hello.workers);
    writer.text(hello.kernels);
    writer.digest(hello.experiment);
    writer.text(hello.problem);
  }
  void operator()(const RankPong&) const {}
  void operator()(const RankPing&) const {}
  void operator()(const CancelJob& cancel) const {
    writer.number(cancel.worker);
    writer.number(cancel.job);
  }
  void operator()(const RankGoodbye& goodbye) const { writer.flag(goodbye.orderly); }
};

RankHello read_hello(ByteReader& reader) {
  RankHello hello;
  hello.host = reader.text();
  hello.process = reader.number();
  hello.workers = static_cast<std::uint32_t>(reader.number());
  hello.kernels = reader.text();
  hello.experiment = reader.digest();
  hello.problem = reader.text();
  return hello;
}

/// `residual_size`: how many bytes behind the update's are its residual.
client::TrainedUpdate read_update(ByteReader& reader, std::uint64_t& residual_size) {
  client::TrainedUpdate update;
  update.digest = reader.digest();
  update.weight = reader.real();
  update.scalars.resize(reader.count(sizeof(double)));
  for (double& scalar : update.scalars) scalar = reader.real();
  update.num_examples = reader.number();
  update.steps = static_cast<std::uint32_t>(reader.number());
  update.train_loss = reader.real();
  if (reader.flag()) {
    privacy::PackedFormat format;
    format.sum_bits = static_cast<std::uint32_t>(reader.number());
    format.coordinates = static_cast<std::size_t>(reader.number());
    update.packed = format;
  }
  update.clipped_coordinates = reader.number();
  if (reader.flag()) update.residual = SharedBytes();
  residual_size = reader.number();
  return update;
}

void write_update(ByteWriter& writer, const client::TrainedUpdate& update) {
  writer.digest(update.digest);
  writer.real(update.weight);
  writer.number(update.scalars.size());
  for (const double scalar : update.scalars) writer.real(scalar);
  writer.number(update.num_examples);
  writer.number(update.steps);
  writer.real(update.train_loss);
  writer.flag(update.packed.has_value());
  if (update.packed) {
    writer.number(update.packed->sum_bits);
    writer.number(update.packed->coordinates);
  }
  writer.number(update.clipped_coordinates);
  writer.flag(update.residual.has_value());
  writer.number(update.residual ? update.residual->size() : 0);
}

}  // namespace

std::vector<std::byte> encode(const ControlMessage& message) {
  ByteWriter writer;
  writer.number(message.index());
  std::visit(ControlWriter{writer}, message);
  return bytes_of(writer);
}

Result<ControlMessage> decode_control(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  const std::uint64_t kind = reader.number();
  ControlMessage message;
  if (kind == 0) {
    message = read_hello(reader);
  } else if (kind == 1) {
    message = RankPong{};
  } else if (kind == 2) {
    message = RankPing{};
  } else if (kind == 3) {
    CancelJob cancel;
    cancel.worker = static_cast<std::uint32_t>(reader.number());
    cancel.job = reader.number();
    message = cancel;
  } else if (kind == 4) {
    message = RankGoodbye{reader.flag()};
  } else {
    reader.fail();
  }
  if (!reader.ok() || reader.left() > 0) return not_ours("a control message");
  return message;
}

std::vector<std::byte> encode_job(std::uint64_t number, const TrainingJob& job,
                                  const ModelReference& model) {
  ByteWriter writer;
  writer.number(number);
  writer.number(value_of(job.task.client));
  writer.number(job.max_epochs);
  writer.number(model.serial);
  writer.flag(model.included);
  writer.number(model.dropped.size());
  for (const std::uint64_t serial : model.dropped) writer.number(serial);
  // A plan has a wire format already: that of an assignment.
  Assignment assignment;
  assignment.run = job.task.run;
  assignment.round = job.task.round;
  assignment.plan = job.task.plan;
  assignment.model_size = job.task.model.size();
  assignment.report_within = job.task.report_within;
  blob(writer, proto::encode(ServerMessage(std::move(assignment))).header);
  writer.number(job.task.residual.size());
  const auto sent = model.included ? job.task.model.span() : std::span<const std::byte>();
  if (job.task.residual.empty()) return join(sent, writer);
  return join(joined(sent, job.task.residual.span()), writer);
}

Result<JobMessage> decode_job(std::vector<std::byte> bytes) {
  auto begin = header_begin(bytes);
  if (!begin) return not_ours("a training job");
  ByteReader reader(header_of(bytes, *begin));
  JobMessage message;
  message.number = reader.number();
  client::TrainingTask& task = message.job.task;
  task.client = static_cast<ClientId>(reader.number());
  message.job.max_epochs = static_cast<std::uint32_t>(reader.number());
  message.model.serial = reader.number();
  message.model.included = reader.flag();
  message.model.dropped.resize(reader.count(1));
  for (std::uint64_t& serial : message.model.dropped) serial = reader.number();
  const auto header = reader.raw(reader.number());
  const std::uint64_t residual_size = reader.number();
  if (!reader.ok() || reader.left() > 0) return not_ours("a training job");
  COVEY_ASSIGN(auto decoded, proto::decode_server_message(header, {}));
  auto* assignment = std::get_if<Assignment>(&decoded);
  if (assignment == nullptr) return not_ours("a training job's plan");
  task.run = assignment->run;
  task.round = assignment->round;
  task.plan = std::move(assignment->plan);
  task.report_within = assignment->report_within;
  auto residual = cut_tail(bytes, *begin, residual_size);
  if (!residual) return not_ours("a training job's residual");
  task.residual = std::move(*residual);
  task.model = payload_of(std::move(bytes), *begin);
  return message;
}

std::vector<std::byte> encode_outcome(std::uint64_t number,
                                      const TrainingWorker::Outcome& outcome) {
  ByteWriter writer;
  std::span<const std::byte> update;
  writer.number(number);
  if (!outcome) {
    writer.number(static_cast<std::uint64_t>(Ending::kCancelled));
  } else if (!outcome->ok()) {
    writer.number(static_cast<std::uint64_t>(Ending::kError));
    writer.number(static_cast<std::uint64_t>(outcome->error().code));
    writer.text(outcome->error().message);
  } else {
    writer.number(static_cast<std::uint64_t>(Ending::kUpdate));
    write_update(writer, **outcome);
    update = (*outcome)->update.span();
    if (const auto& residual = (*outcome)->residual; residual && !residual->empty()) {
      return join(joined(update, residual->span()), writer);
    }
  }
  return join(update, writer);
}

Result<OutcomeMessage> decode_outcome(std::vector<std::byte> bytes) {
  auto begin = header_begin(bytes);
  if (!begin) return not_ours("a training result");
  std::uint64_t residual_size = 0;
  ByteReader reader(header_of(bytes, *begin));
  OutcomeMessage message;
  message.number = reader.number();
  const std::uint64_t ending = reader.number();
  if (ending == static_cast<std::uint64_t>(Ending::kUpdate)) {
    message.outcome = Result<client::TrainedUpdate>(read_update(reader, residual_size));
  } else if (ending == static_cast<std::uint64_t>(Ending::kError)) {
    const auto code = static_cast<ErrorCode>(reader.number());
    message.outcome = Result<client::TrainedUpdate>(Error{code, reader.text()});
  } else if (ending != static_cast<std::uint64_t>(Ending::kCancelled)) {
    reader.fail();
  }
  if (!reader.ok() || reader.left() > 0) return not_ours("a training result");
  if (message.outcome && message.outcome->ok()) {
    auto residual = cut_tail(bytes, *begin, residual_size);
    if (!residual) return not_ours("a training result's residual");
    if ((*message.outcome)->residual) (*message.outcome)->residual = std::move(*residual);
    (*message.outcome)->update = payload_of(std::move(bytes), *begin);
  }
  return message;
}

}  // namespace covey::simulation
