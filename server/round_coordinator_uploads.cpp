#include <fmt/format.h>

#include <cmath>
#include <covey/assert.hpp>
#include <covey/server/plan_variants.hpp>

#include "round_coordinator_state.hpp"

namespace covey::server {

// ---- reports

void RoundCoordinator::State::on_message(Time, Connection& connection, Report& message,
                                         Actions& actions) {
  const auto turn_down = [&](RejectReason reason, std::string text) {
    send_rejection(connection.id, message, reason, std::move(text), actions);
  };
  if (message.run != run) return turn_down(RejectReason::kForeign, "the report is of another run");
  if (message.round > round()) return turn_down(RejectReason::kForeign, "the round has not begun");
  // The last cohort is remembered until the next is drawn, so that a device whose answer was lost
  // still gets it after the round has closed.
  Member* member = cohort.find(connection.client);
  if (asynchronous() && (member == nullptr || member->round != message.round)) {
    return turn_down(RejectReason::kLate, "the device has no such assignment any more");
  }
  if (!asynchronous() && message.round != cohort.round()) {
    return turn_down(RejectReason::kLate, "the round is over");
  }
  if (member == nullptr) {
    return turn_down(RejectReason::kForeign, "the device was not selected in this round");
  }
  switch (member->state) {
    case MemberState::kAccepted:
      if (summing()) {  // the answer comes when the sum is unmasked
        member->connection = connection.id;
        return;
      }
      if (message.blob == member->report->blob) {
        send(connection.id, ReportAccepted{run, message.round, times.retry}, actions);
        return;
      }
      return turn_down(RejectReason::kDuplicate, "another update of this device was counted");
    case MemberState::kRejected:
      return turn_down(member->rejection, member->rejection_text);
    case MemberState::kJudging:  // the judgement is the answer
      member->connection = connection.id;
      return;
    case MemberState::kMissed:
      return turn_down(RejectReason::kLate, "the device missed a step of the secure sum");
    case MemberState::kLeft:
      return turn_down(RejectReason::kLate, "the device had declined this round");
    case MemberState::kWorking:
    case MemberState::kQueued:
    case MemberState::kOpening:
    case MemberState::kUploading:
    case MemberState::kReady:
      break;
  }
  if (!reporting()) {
    member->connection.reset();
    return turn_down(RejectReason::kLate, "the round is closed");
  }
  if (summing() && (sum->step() != privacy::SecAggServer::Step::kMask ||
                    !sum->awaits(connection.client))) {
    // Asked about an earlier attempt at this round by a device that was drawn again meanwhile, say.
    return turn_down(RejectReason::kLate, "no masked update was asked for in this step of the sum");
  }
  if (auto fault = fault_of(*member, message)) {
    member->connection = connection.id;
    reject(*member, fault->first, std::move(fault->second), actions);
    return;
  }
  take_report(*member, connection, std::move(message), actions);
}

std::optional<std::pair<RejectReason, std::string>> RoundCoordinator::State::fault_of(
    const Member& member, const Report& report) const {
  const OfferedCompressor& offered = compressors(member.variant)[member.compressor];
  if (!offered.sizes.contains(report.blob_size)) {
    return std::pair(RejectReason::kWrongSize,
                     fmt::format("the update has {} bytes, as {} an update of this model has {}",
                                 report.blob_size, offered.name, to_string(offered.sizes)));
  }
  if (report.scalars.size() != options.num_scalars) {
    return std::pair(
        RejectReason::kMalformed,
        fmt::format("the report has {} scalars, strategy {} sums {}", report.scalars.size(),
                    options.plan.strategy, options.num_scalars));
  }
  const auto finite = [](double number) { return std::isfinite(number); };
  if (!finite(report.weight) || !std::ranges::all_of(report.scalars, finite)) {
    return std::pair(RejectReason::kNotFinite,
                     std::string("the report's weight or a scalar is not finite"));
  }
  if (report.weight < 0) {
    return std::pair(RejectReason::kMalformed, std::string("the report's weight is negative"));
  }
  return std::nullopt;
}

void RoundCoordinator::State::take_report(Member& member, Connection& connection, Report report,
                                          Actions& actions) {
  const bool same = member.report && member.report->blob == report.blob;
  if (!same) drop_upload(member, actions);
  member.connection = connection.id;
  member.report = std::move(report);
  switch (member.state) {
    case MemberState::kUploading:
      if (same) return;  // said twice on one connection: its grant is under way
      withdraw(member);
      break;
    case MemberState::kOpening: {
      Upload& upload = *slots.find(member.client);
      upload.connection = connection.id;
      upload.superseded |= !same;
      return;
    }
    case MemberState::kQueued:
      return;
    case MemberState::kReady:
      if (same) return;
      leave_ready(member);
      back_to_work(member);
      break;
    default:
      break;
  }
  slots.enqueue(member.client);
  member.state = MemberState::kQueued;
}

// ---- slots

void RoundCoordinator::State::pump_uploads(Actions& actions) {
  while (const auto client = slots.admit()) {
    Member* member = cohort.find(*client);
    COVEY_ASSERT(member != nullptr && member->state == MemberState::kQueued);
    Upload& upload = *slots.find(*client);
    upload.key = key_of(*member);
    upload.size = member->report->blob_size;
    upload.connection = member->connection;
    member->state = MemberState::kOpening;
    ++outstanding;
    actions.emplace_back(OpenUpload{upload.key, upload.size, oldest_wanted()});
  }
}

void RoundCoordinator::State::on(Time now, UploadOpened& event, Actions& actions) {
  if (slots.release_abandoned(event.key)) {
    --outstanding;
    return;
  }
  Upload* upload = slots.find(event.key.client);
  if (upload == nullptr || upload->opened || upload->key != event.key) return;
  --outstanding;
  upload->opened = true;
  Member* member = cohort.find(event.key.client);
  COVEY_ASSERT(member != nullptr);
  if (member->state != MemberState::kOpening) {  // decided meanwhile
    slots.release(member->client);
    return;
  }
  const bool present = upload->connection.has_value();
  if (closing || !present || upload->superseded) {
    slots.release(member->client);
    member->state = MemberState::kWorking;
    if (present && !closing) {  // the other content gets in line
      slots.enqueue(member->client);
      member->state = MemberState::kQueued;
    }
    return;
  }
  if (!event.offset.ok() || *event.offset > upload->size) {
    slots.release(member->client);
    member->state = MemberState::kWorking;
    upload_failed(*member,
                  event.offset.ok() ? "more bytes are held than were announced"
                                    : event.offset.error().message,
                  actions);
  } else {
    begin_upload(now, *member, *upload, *event.offset, actions);
  }
}

void RoundCoordinator::State::begin_upload(Time now, Member& member, Upload& upload,
                                           std::uint64_t offset, Actions& actions) {
  member.state = MemberState::kUploading;
  upload.next = offset;
  upload.last_chunk = now;
  if (upload.complete()) {  // all bytes came before an interruption
    uploaded(member, actions);
    return;
  }
  Connection* connection = roster.find(*upload.connection);
  COVEY_ASSERT(connection != nullptr);  // a lost one is taken out of the upload at once
  connection->void_upload.reset();
  send(connection->id, upload.grant(upload_window), actions);
}

void RoundCoordinator::State::on_message(Time now, Connection& connection, BlobChunk& message,
                                         Actions& actions) {
  Upload* upload = slots.find(connection.client);
  if (upload == nullptr || !upload->opened || upload->connection != connection.id) {
    if (connection.void_upload == message.blob) return;
    refuse(connection, RefusalReason::kProtocol, "a chunk that was not asked for", actions);
    return;
  }
  if (closing) return;  // too late by a moment: RoundOver is on its way
  if (auto fault = upload->fault_of(message)) {
    refuse(connection, RefusalReason::kProtocol, std::move(*fault), actions);
    return;
  }
  upload->next += message.payload.size();
  upload->last_chunk = now;
  actions.emplace_back(WriteUpload{upload->key, message.offset, std::move(message.payload)});
  if (upload->complete()) {
    uploaded(*cohort.find(connection.client), actions);
  } else if (upload->wants_grant(upload_window)) {
    send(connection.id, upload->grant(upload_window), actions);
  }
}

void RoundCoordinator::State::withdraw(Member& member) {
  if (member.state == MemberState::kQueued) {
    slots.dequeue(member.client);
    member.state = MemberState::kWorking;
  } else if (member.state == MemberState::kOpening) {
    if (asynchronous()) {  // the member may be gone before it is answered
      slots.abandon(member.client);
      member.state = MemberState::kWorking;
      return;
    }
    slots.find(member.client)->connection.reset();  // the slot is given back when it is answered
  } else if (member.state == MemberState::kUploading) {
    const Upload& upload = *slots.find(member.client);
    if (Connection* connection = roster.find(*upload.connection)) {
      connection->void_upload = upload.key.blob;
    }
    slots.release(member.client);
    member.state = MemberState::kWorking;
  }
}

// ---- judgement

void RoundCoordinator::State::uploaded(Member& member, Actions& actions) {
  slots.release(member.client);
  if (!asynchronous()) return judge(member, actions);
  member.state = MemberState::kReady;
  buffer.in_flight.erase(member.ticket);
  member.ready_place = buffer.next_ready_place++;
  buffer.ready.emplace(member.ready_place, member.client);
}

void RoundCoordinator::State::judge(Member& member, Actions& actions) {
  member.state = MemberState::kJudging;
  ++outstanding;
  JudgeUpdate action{key_of(member), *member.report};
  action.variant = member.variant;
  action.compressor = member.compressor;
  if (asynchronous()) {
    ++buffer.judging;
    action.staleness = member.staleness = staleness_of(member.round);
    if (options.needs_base) {
      // As the device was sent it, where that is fp32 but not the model itself.
      const EncodedModel& began = member.version->model;
      const bool compressed = options.config.server.model_compressor != "off";
      action.base = compressed ? began.sent : began.parameters;
    }
  }
  actions.emplace_back(std::move(action));
}

/// A JudgeUpdate was answered.
void RoundCoordinator::State::judged() {
  --outstanding;
  if (asynchronous()) --buffer.judging;
}

void RoundCoordinator::State::on(Time, UpdateJudged& event, Actions& actions) {
  Member* member = cohort.find(event.key.client);
  if (member == nullptr || member->state != MemberState::kJudging) return;
  if (event.key != key_of(*member)) return;
  judged();
  if (!event.rejection) {
    accept(*member, actions);
    return;
  }
  auto& [reason, text] = *event.rejection;
  if (reason == RejectReason::kServerFailed) {
    upload_failed(*member, text, actions);
    return;
  }
  figures().bytes_up += member->report->blob_size;
  reject(*member, reason, std::move(text), actions);
}

void RoundCoordinator::State::on(Time, UploadFailed& event, Actions& actions) {
  Member* member = cohort.find(event.key.client);
  if (member == nullptr || !member->report || event.key != key_of(*member)) return;
  if (member->state == MemberState::kJudging) {
    judged();
  } else if (member->state != MemberState::kUploading) {
    return;
  }
  upload_failed(*member, event.error.message, actions);
}

void RoundCoordinator::State::upload_failed(Member& member, const std::string& what,
                                            Actions& actions) {
  actions.emplace_back(
      Note{fmt::format("the update of client {} for round {} could not be stored: {}",
                       value_of(member.client), value_of(member.round), what)});
  withdraw(member);
  drop_upload(member, actions);
  member.state = MemberState::kWorking;  // not the device's fault: it may report again
  if (asynchronous()) back_to_work(member);
  const Report report = std::move(*member.report);
  member.report.reset();
  if (!member.connection) return;
  send_rejection(*member.connection, report, RejectReason::kServerFailed,
                 "the server could not store the update", actions);
}

void RoundCoordinator::State::accept(Member& member, Actions& actions) {
  drop_upload(member, actions);
  figures().bytes_up += member.report->blob_size;
  cohort.decide(member, MemberState::kAccepted);
  remember_report(member);
  if (asynchronous()) decided(member);
  if (summing()) {  // it is still needed to unmask
    sum->add_masked_input(member.client);
    if (member.left_sum) leave_sum(member);
    return;
  }
  if (!member.connection) return;
  send(*member.connection, ReportAccepted{run, member.round, times.retry}, actions);
  member.connection.reset();
}

void RoundCoordinator::State::reject(Member& member, RejectReason reason, std::string text,
                                     Actions& actions) {
  withdraw(member);
  drop_upload(member, actions);
  actions.emplace_back(Note{fmt::format("update of client {} rejected in round {}: {}: {}",
                                        value_of(member.client), value_of(member.round),
                                        to_string(reason), text)});
  cohort.decide(member, MemberState::kRejected);
  remember_missed(member);
  if (asynchronous()) decided(member);
  if (summing()) sum->leave(member.client);
  member.rejection = reason;
  member.rejection_text = text;
  if (!member.connection) return;
  send(*member.connection,
       ReportRejected{run, member.round, reason, std::move(text), times.retry}, actions);
  member.connection.reset();
}

void RoundCoordinator::State::drop_upload(const Member& member, Actions& actions) const {
  if (member.report) actions.emplace_back(DropUpload{key_of(member)});
}

void RoundCoordinator::State::send_rejection(ConnectionId connection, const Report& report,
                                             RejectReason reason, std::string text,
                                             Actions& actions) const {
  // Names the report's own run and round, so that the device knows which task this is about.
  // A server that cannot store needs time, not the same bytes again at once.
  const RetryWindow& window = reason == RejectReason::kServerFailed ? times.relief : times.retry;
  send(connection, ReportRejected{report.run, report.round, reason, std::move(text), window}, actions);
}

UploadKey RoundCoordinator::State::key_of(const Member& member) const {
  return {run, member.round, member.client, member.report->blob};
}

}  // namespace covey::server
