#include <variant>

#include "codec_common.hpp"

namespace covey::proto {
namespace {

void write(const ModelDelta& delta, wire::ModelDelta* out) {
  write_digest(delta.base, out->mutable_base());
  write_digest(delta.blob, out->mutable_blob());
  out->set_size(delta.size);
  out->set_encoding(wire_text(delta.encoding));
}

/// Writes one message into the envelope's matching kind.
struct Writer {
  wire::Envelope& envelope;

  void operator()(const Welcome& welcome) const {
    auto* out = envelope.mutable_welcome();
    out->set_version(welcome.version);
    out->set_max_chunk_bytes(welcome.max_chunk_bytes);
    out->set_heartbeat_interval_us(welcome.heartbeat_interval.count());
  }
  void operator()(const Refusal& refusal) const {
    auto* out = envelope.mutable_refusal();
    out->set_reason(static_cast<wire::RefusalReason>(refusal.reason));
    out->set_text(wire_text(refusal.text));
  }
  void operator()(const Waiting&) const { envelope.mutable_waiting(); }
  void operator()(const RetryLater& later) const {
    auto* out = envelope.mutable_retry_later();
    proto::write(later.window, out->mutable_window());
    out->set_reason(wire_text(later.reason));
  }
  void operator()(const Assignment& assignment) const {
    auto* out = envelope.mutable_assignment();
    out->set_run(value_of(assignment.run));
    out->set_round(value_of(assignment.round));
    proto::write(assignment.plan, out->mutable_plan());
    write_digest(assignment.model, out->mutable_model());
    out->set_model_size(assignment.model_size);
    out->set_report_within_us(assignment.report_within.count());
    if (assignment.aggregation != AggregationId{}) {
      out->set_aggregation(fixed_bytes(assignment.aggregation.bytes));
    }
    if (assignment.delta) write(*assignment.delta, out->mutable_delta());
  }
  void operator()(const BlobChunk& chunk) const {
    proto::write(chunk, envelope.mutable_blob_chunk());
  }
  void operator()(const BlobMissing& missing) const {
    write_digest(missing.blob, envelope.mutable_blob_missing()->mutable_blob());
  }
  void operator()(const UploadGrant& grant) const {
    auto* out = envelope.mutable_upload_grant();
    write_digest(grant.blob, out->mutable_blob());
    out->set_offset(grant.offset);
    out->set_window(grant.window);
  }
  void operator()(const ProgressReply& reply) const {
    auto* out = envelope.mutable_progress_reply();
    out->set_run(value_of(reply.run));
    out->set_round(value_of(reply.round));
    out->set_wanted(reply.wanted);
  }
  void operator()(const ReportAccepted& accepted) const {
    auto* out = envelope.mutable_report_accepted();
    out->set_run(value_of(accepted.run));
    out->set_round(value_of(accepted.round));
    proto::write(accepted.retry, out->mutable_retry());
  }
  void operator()(const ReportRejected& rejected) const {
    auto* out = envelope.mutable_report_rejected();
    out->set_run(value_of(rejected.run));
    out->set_round(value_of(rejected.round));
    out->set_reason(static_cast<wire::RejectReason>(rejected.reason));
    out->set_text(wire_text(rejected.text));
    proto::write(rejected.retry, out->mutable_retry());
  }
  void operator()(const RoundOver& over) const {
    auto* out = envelope.mutable_round_over();
    out->set_run(value_of(over.run));
    out->set_round(value_of(over.round));
    proto::write(over.retry, out->mutable_retry());
  }
  void operator()(const NeighbourKeys& message) const {
    proto::write(message, envelope.mutable_neighbour_keys());
  }
  void operator()(const PeerShares& message) const {
    proto::write(message, envelope.mutable_peer_shares());
  }
  void operator()(const SurvivorSet& message) const {
    proto::write(message, envelope.mutable_survivor_set());
  }
  void operator()(const SurvivorConfirmations& message) const {
    proto::write(message, envelope.mutable_survivor_confirmations());
  }
  void operator()(const StatusReply& reply) const {
    // A document cannot be cut like a sentence; an operator is told instead of refused.
    envelope.mutable_status_reply()->set_json(
        reply.json.size() <= kMaxStatusBytes
            ? wire_text(reply.json, kMaxStatusBytes)
            : R"({"error":"the status is larger than the 256 KiB a reply can carry"})");
  }
};

Result<ServerMessage> read(const wire::Welcome& in) {
  FieldReader reader("welcome");
  Welcome welcome{reader.value(COVEY_FIELD(in, version)),
                  reader.value(COVEY_FIELD(in, max_chunk_bytes)),
                  reader.duration(COVEY_FIELD(in, heartbeat_interval_us))};
  if (welcome.max_chunk_bytes == 0) reader.fail("max_chunk_bytes", "must be at least 1");
  return finish<Welcome, ServerMessage>(reader, std::move(welcome));
}

Result<ServerMessage> read(const wire::Refusal& in) {
  FieldReader reader("refusal");
  Refusal refusal{
      reader.known(COVEY_FIELD(in, reason), RefusalReason::kVersion, RefusalReason::kRunFinished),
      reader.text(COVEY_FIELD(in, text))};
  return finish<Refusal, ServerMessage>(reader, std::move(refusal));
}

Result<ServerMessage> read(const wire::RetryLater& in) {
  FieldReader reader("retry_later");
  RetryLater later;
  reader.part(COVEY_FIELD(in, window),
              [&](const auto& part) { later.window = read_retry(reader, part); });
  later.reason = reader.text(COVEY_FIELD(in, reason));
  return finish<RetryLater, ServerMessage>(reader, std::move(later));
}

Result<ServerMessage> read(const wire::Assignment& in) {
  FieldReader reader("assignment");
  Assignment assignment;
  assignment.run = reader.id<RunId>(COVEY_FIELD(in, run));
  assignment.round = reader.id<RoundNumber>(COVEY_FIELD(in, round));
  reader.part(COVEY_FIELD(in, plan),
              [&](const auto& part) { assignment.plan = read_plan(reader, part); });
  assignment.model = reader.digest(COVEY_FIELD(in, model));
  assignment.model_size = reader.value(COVEY_FIELD(in, model_size));
  assignment.report_within = reader.duration(COVEY_FIELD(in, report_within_us));
  if (in.has_aggregation()) {
    assignment.aggregation.bytes = reader.fixed<16>(COVEY_FIELD(in, aggregation));
  }
  if (in.has_delta()) {
    reader.part(COVEY_FIELD(in, delta), [&](const auto& part) {
      assignment.delta = ModelDelta{reader.digest(COVEY_FIELD(part, base)), reader.digest(COVEY_FIELD(part, blob)),
                                    reader.value(COVEY_FIELD(part, size)), reader.text(COVEY_FIELD(part, encoding))};
    });
  }
  return finish<Assignment, ServerMessage>(reader, std::move(assignment));
}

Result<ServerMessage> read(const wire::BlobMissing& in) {
  FieldReader reader("blob_missing");
  BlobMissing missing{reader.digest(COVEY_FIELD(in, blob))};
  return finish<BlobMissing, ServerMessage>(reader, std::move(missing));
}

Result<ServerMessage> read(const wire::UploadGrant& in) {
  FieldReader reader("upload_grant");
  UploadGrant grant{reader.digest(COVEY_FIELD(in, blob)), reader.value(COVEY_FIELD(in, offset)),
                    reader.value(COVEY_FIELD(in, window))};
  return finish<UploadGrant, ServerMessage>(reader, std::move(grant));
}

Result<ServerMessage> read(const wire::ProgressReply& in) {
  FieldReader reader("progress_reply");
  ProgressReply reply{reader.id<RunId>(COVEY_FIELD(in, run)),
                      reader.id<RoundNumber>(COVEY_FIELD(in, round)),
                      reader.value(COVEY_FIELD(in, wanted))};
  return finish<ProgressReply, ServerMessage>(reader, std::move(reply));
}

Result<ServerMessage> read(const wire::ReportAccepted& in) {
  FieldReader reader("report_accepted");
  ReportAccepted accepted{
      reader.id<RunId>(COVEY_FIELD(in, run)), reader.id<RoundNumber>(COVEY_FIELD(in, round)), {}};
  reader.part(COVEY_FIELD(in, retry),
              [&](const auto& part) { accepted.retry = read_retry(reader, part); });
  return finish<ReportAccepted, ServerMessage>(reader, std::move(accepted));
}

Result<ServerMessage> read(const wire::ReportRejected& in) {
  FieldReader reader("report_rejected");
  ReportRejected rejected;
  rejected.run = reader.id<RunId>(COVEY_FIELD(in, run));
  rejected.round = reader.id<RoundNumber>(COVEY_FIELD(in, round));
  rejected.reason =
      reader.known(COVEY_FIELD(in, reason), RejectReason::kLate, RejectReason::kServerFailed);
  rejected.text = reader.text(COVEY_FIELD(in, text));
  reader.part(COVEY_FIELD(in, retry),
              [&](const auto& part) { rejected.retry = read_retry(reader, part); });
  return finish<ReportRejected, ServerMessage>(reader, std::move(rejected));
}

Result<ServerMessage> read(const wire::RoundOver& in) {
  FieldReader reader("round_over");
  RoundOver over{
      reader.id<RunId>(COVEY_FIELD(in, run)), reader.id<RoundNumber>(COVEY_FIELD(in, round)), {}};
  reader.part(COVEY_FIELD(in, retry),
              [&](const auto& part) { over.retry = read_retry(reader, part); });
  return finish<RoundOver, ServerMessage>(reader, std::move(over));
}

Result<ServerMessage> read(const wire::StatusReply& in) {
  FieldReader reader("status_reply");
  StatusReply reply{reader.text(COVEY_FIELD(in, json), kMaxStatusBytes)};
  return finish<StatusReply, ServerMessage>(reader, std::move(reply));
}

}  // namespace

Encoded encode(const ServerMessage& message) {
  ArenaEnvelope envelope;
  std::visit(Writer{*envelope}, message);
  Encoded encoded{serialise(*envelope), {}};
  if (const auto* chunk = std::get_if<BlobChunk>(&message)) encoded.payload = chunk->payload;
  return encoded;
}

Result<ServerMessage> decode_server_message(std::span<const std::byte> header,
                                            SharedBytes payload) {
  ArenaEnvelope envelope;
  COVEY_TRY(envelope.parse(header, payload.size()));
  switch (envelope->kind_case()) {
    case wire::Envelope::kWelcome:
      return read(envelope->welcome());
    case wire::Envelope::kRefusal:
      return read(envelope->refusal());
    case wire::Envelope::kWaiting:
      return ServerMessage(Waiting{});
    case wire::Envelope::kRetryLater:
      return read(envelope->retry_later());
    case wire::Envelope::kAssignment:
      return read(envelope->assignment());
    case wire::Envelope::kBlobMissing:
      return read(envelope->blob_missing());
    case wire::Envelope::kUploadGrant:
      return read(envelope->upload_grant());
    case wire::Envelope::kProgressReply:
      return read(envelope->progress_reply());
    case wire::Envelope::kReportAccepted:
      return read(envelope->report_accepted());
    case wire::Envelope::kReportRejected:
      return read(envelope->report_rejected());
    case wire::Envelope::kRoundOver:
      return read(envelope->round_over());
    case wire::Envelope::kStatusReply:
      return read(envelope->status_reply());
    case wire::Envelope::kNeighbourKeys:
      return read_message(envelope->neighbour_keys());
    case wire::Envelope::kPeerShares:
      return read_message(envelope->peer_shares());
    case wire::Envelope::kSurvivorSet:
      return read_message(envelope->survivor_set());
    case wire::Envelope::kSurvivorConfirmations:
      return read_message(envelope->survivor_confirmations());
    case wire::Envelope::kBlobChunk: {
      COVEY_ASSIGN(BlobChunk chunk, read_chunk(envelope->blob_chunk(), std::move(payload)));
      return ServerMessage(std::move(chunk));
    }
    default:
      return wrong_direction(envelope->kind_case(), "server");
  }
}

}  // namespace covey::proto
