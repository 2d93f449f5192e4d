#include <variant>

#include "codec_common.hpp"

namespace covey::proto {
namespace {

void write(const DeviceConditions& conditions, wire::DeviceConditions* out) {
  out->set_num_examples(conditions.num_examples);
  out->set_charging(conditions.charging);
  out->set_metered(conditions.metered);
  out->set_thermal(static_cast<wire::ThermalState>(conditions.thermal));
  out->set_free_memory_bytes(conditions.free_memory_bytes);
  out->set_agent_version(wire_text(conditions.agent_version));
  for (const auto& precision : conditions.precisions) out->add_precisions(wire_text(precision));
  for (const auto& compressor : conditions.compressors) out->add_compressors(wire_text(compressor));
  if (!conditions.device_class.empty()) out->set_device_class(wire_text(conditions.device_class));
  if (conditions.held_model) write_digest(*conditions.held_model, out->mutable_held_model());
}

DeviceConditions read_conditions(FieldReader& reader, const wire::DeviceConditions& in) {
  DeviceConditions conditions;
  conditions.num_examples = reader.value(COVEY_FIELD(in, num_examples));
  conditions.charging = reader.value(COVEY_FIELD(in, charging));
  conditions.metered = reader.value(COVEY_FIELD(in, metered));
  conditions.thermal =
      reader.known(COVEY_FIELD(in, thermal), ThermalState::kNominal, ThermalState::kHot);
  conditions.free_memory_bytes = reader.value(COVEY_FIELD(in, free_memory_bytes));
  conditions.agent_version = reader.text(COVEY_FIELD(in, agent_version));
  conditions.precisions = reader.texts(in.precisions(), "precisions");
  conditions.compressors = reader.texts(in.compressors(), "compressors");
  if (in.has_device_class()) conditions.device_class = reader.text(COVEY_FIELD(in, device_class));
  if (in.has_held_model()) conditions.held_model = reader.digest(COVEY_FIELD(in, held_model));
  return conditions;
}

/// Writes one message into the envelope's matching kind.
struct Writer {
  wire::Envelope& envelope;

  void operator()(const Hello& hello) const {
    auto* out = envelope.mutable_hello();
    out->set_version_min(hello.version_min);
    out->set_version_max(hello.version_max);
    out->set_agent_version(wire_text(hello.agent_version));
  }
  void operator()(const CheckIn& check_in) const {
    write(check_in.conditions, envelope.mutable_check_in()->mutable_conditions());
  }
  void operator()(const BlobRequest& request) const {
    auto* out = envelope.mutable_blob_request();
    write_digest(request.blob, out->mutable_blob());
    out->set_offset(request.offset);
    out->set_length(request.length);
  }
  void operator()(const BlobChunk& chunk) const {
    proto::write(chunk, envelope.mutable_blob_chunk());
  }
  void operator()(const Progress& progress) const {
    auto* out = envelope.mutable_progress();
    out->set_run(value_of(progress.run));
    out->set_round(value_of(progress.round));
    out->set_steps_done(progress.steps_done);
    out->set_steps_total(progress.steps_total);
  }
  void operator()(const Report& report) const {
    auto* out = envelope.mutable_report();
    out->set_run(value_of(report.run));
    out->set_round(value_of(report.round));
    write_digest(report.blob, out->mutable_blob());
    out->set_blob_size(report.blob_size);
    out->set_weight(report.weight);
    out->mutable_scalars()->Add(report.scalars.begin(), report.scalars.end());
    out->set_num_examples(report.num_examples);
    out->set_steps(report.steps);
    out->set_train_loss(report.train_loss);
    out->set_train_seconds(report.train_seconds);
  }
  void operator()(const Decline& decline) const {
    auto* out = envelope.mutable_decline();
    out->set_run(value_of(decline.run));
    out->set_round(value_of(decline.round));
    out->set_reason(wire_text(decline.reason));
    if (decline.revealed) out->set_revealed(true);
  }
  void operator()(const StatusRequest&) const { envelope.mutable_status_request(); }
  void operator()(const AdvertiseKeys& message) const {
    proto::write(message, envelope.mutable_advertise_keys());
  }
  void operator()(const ShareKeys& message) const {
    proto::write(message, envelope.mutable_share_keys());
  }
  void operator()(const ConfirmSurvivors& message) const {
    proto::write(message, envelope.mutable_confirm_survivors());
  }
  void operator()(const Unmask& message) const { proto::write(message, envelope.mutable_unmask()); }
};

Result<ClientMessage> read(const wire::Hello& in) {
  FieldReader reader("hello");
  Hello hello{reader.value(COVEY_FIELD(in, version_min)),
              reader.value(COVEY_FIELD(in, version_max)),
              reader.text(COVEY_FIELD(in, agent_version))};
  if (hello.version_min > hello.version_max) {
    reader.fail("version_max", "smaller than version_min");
  }
  return finish<Hello, ClientMessage>(reader, std::move(hello));
}

Result<ClientMessage> read(const wire::CheckIn& in) {
  FieldReader reader("check_in");
  CheckIn check_in;
  reader.part(COVEY_FIELD(in, conditions),
              [&](const auto& part) { check_in.conditions = read_conditions(reader, part); });
  return finish<CheckIn, ClientMessage>(reader, std::move(check_in));
}

Result<ClientMessage> read(const wire::BlobRequest& in) {
  FieldReader reader("blob_request");
  BlobRequest request{reader.digest(COVEY_FIELD(in, blob)), reader.value(COVEY_FIELD(in, offset)),
                      reader.value(COVEY_FIELD(in, length))};
  if (request.length == 0) reader.fail("length", "must be at least 1");
  return finish<BlobRequest, ClientMessage>(reader, std::move(request));
}

Result<ClientMessage> read(const wire::Progress& in) {
  FieldReader reader("progress");
  Progress progress{
      reader.id<RunId>(COVEY_FIELD(in, run)), reader.id<RoundNumber>(COVEY_FIELD(in, round)),
      reader.value(COVEY_FIELD(in, steps_done)), reader.value(COVEY_FIELD(in, steps_total))};
  return finish<Progress, ClientMessage>(reader, std::move(progress));
}

Result<ClientMessage> read(const wire::Report& in) {
  FieldReader reader("report");
  Report report;
  report.run = reader.id<RunId>(COVEY_FIELD(in, run));
  report.round = reader.id<RoundNumber>(COVEY_FIELD(in, round));
  report.blob = reader.digest(COVEY_FIELD(in, blob));
  report.blob_size = reader.value(COVEY_FIELD(in, blob_size));
  // Doubles pass as they are: whether they are finite is for the coordinator to judge and to
  // answer.
  report.weight = reader.value(COVEY_FIELD(in, weight));
  if (reader.length(in.scalars_size(), "scalars")) {
    report.scalars.assign(in.scalars().begin(), in.scalars().end());
  }
  report.num_examples = reader.value(COVEY_FIELD(in, num_examples));
  report.steps = reader.value(COVEY_FIELD(in, steps));
  report.train_loss = reader.value(COVEY_FIELD(in, train_loss));
  report.train_seconds = reader.value(COVEY_FIELD(in, train_seconds));
  return finish<Report, ClientMessage>(reader, std::move(report));
}

Result<ClientMessage> read(const wire::Decline& in) {
  FieldReader reader("decline");
  Decline decline{reader.id<RunId>(COVEY_FIELD(in, run)),
                  reader.id<RoundNumber>(COVEY_FIELD(in, round)),
                  reader.text(COVEY_FIELD(in, reason)), in.revealed()};
  return finish<Decline, ClientMessage>(reader, std::move(decline));
}

}  // namespace

Encoded encode(const ClientMessage& message) {
  ArenaEnvelope envelope;
  std::visit(Writer{*envelope}, message);
  Encoded encoded{serialise(*envelope), {}};
  if (const auto* chunk = std::get_if<BlobChunk>(&message)) encoded.payload = chunk->payload;
  return encoded;
}

Result<ClientMessage> decode_client_message(std::span<const std::byte> header,
                                            SharedBytes payload) {
  ArenaEnvelope envelope;
  COVEY_TRY(envelope.parse(header, payload.size()));
  switch (envelope->kind_case()) {
    case wire::Envelope::kHello:
      return read(envelope->hello());
    case wire::Envelope::kCheckIn:
      return read(envelope->check_in());
    case wire::Envelope::kBlobRequest:
      return read(envelope->blob_request());
    case wire::Envelope::kProgress:
      return read(envelope->progress());
    case wire::Envelope::kReport:
      return read(envelope->report());
    case wire::Envelope::kDecline:
      return read(envelope->decline());
    case wire::Envelope::kStatusRequest:
      return ClientMessage(StatusRequest{});
    case wire::Envelope::kAdvertiseKeys:
      return read_message(envelope->advertise_keys());
    case wire::Envelope::kShareKeys:
      return read_message(envelope->share_keys());
    case wire::Envelope::kConfirmSurvivors:
      return read_message(envelope->confirm_survivors());
    case wire::Envelope::kUnmask:
      return read_message(envelope->unmask());
    case wire::Envelope::kBlobChunk: {
      COVEY_ASSIGN(BlobChunk chunk, read_chunk(envelope->blob_chunk(), std::move(payload)));
      return ClientMessage(std::move(chunk));
    }
    default:
      return wrong_direction(envelope->kind_case(), "device");
  }
}

}  // namespace covey::proto
