#include <fmt/format.h>

#include <cctype>
#include <covey/assert.hpp>
#include <covey/server/plan_variants.hpp>
#include <string_view>

#include "round_coordinator_state.hpp"

namespace covey::server {
namespace {

// The longest retry window is this many times the usual one: an hour or two with the usual minutes.
constexpr std::uint64_t kLongestBusyFactor = 60;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

/// A peer's words for the log: short, and without control characters that could forge a line.
std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::string shown(text.substr(0, kLongest));
  for (char& c : shown) {
    if (std::iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return shown;
}

}  // namespace

// ---- connections

void RoundCoordinator::State::on(Time, DeviceConnected& event, Actions& actions) {
  if (event.role == Role::kDevice) {
    if (Connection* older = roster.find_device(event.client)) {
      actions.emplace_back(Close{older->id});
      disconnect(*older);
    }
  }
  roster.add(event);
}

void RoundCoordinator::State::on(Time, DeviceGone& event, Actions&) {
  if (Connection* connection = roster.find(event.connection)) disconnect(*connection);
}

void RoundCoordinator::State::disconnect(Connection& connection) {
  if (connection.role == Role::kDevice) {
    remember_presence(connection, false);
    if (Member* member = cohort.find(connection.client)) {
      member->connection.reset();
      withdraw(*member);
      if (asynchronous()) went_away(*member);
    }
  }
  roster.remove(connection.id);
}

void RoundCoordinator::State::refuse(Connection& connection, RefusalReason reason, std::string text,
                                     Actions& actions) {
  actions.emplace_back(
      Note{fmt::format("client {} refused: {}", value_of(connection.client), text)});
  send(connection.id, Refusal{reason, std::move(text)}, actions);
  actions.emplace_back(Close{connection.id});
  disconnect(connection);
}

void RoundCoordinator::State::on(Time now, Received& event, Actions& actions) {
  Connection* connection = roster.find(event.connection);
  if (connection == nullptr) return;  // it was closed from here; this was still on its way
  if (!connection->greeted) {
    if (const auto* hello = std::get_if<Hello>(&event.message)) {
      greet(*connection, *hello, actions);
    } else {
      refuse(*connection, RefusalReason::kProtocol, "the first message must be Hello", actions);
    }
    return;
  }
  if (connection->role == Role::kOperator) {
    operator_message(now, *connection, event.message, actions);
    return;
  }
  if (Member* member = cohort.find(connection->client)) member->last_heard = now;
  std::visit([&](auto& message) { on_message(now, *connection, message, actions); }, event.message);
}

void RoundCoordinator::State::greet(Connection& connection, const Hello& hello, Actions& actions) {
  if (hello.version_min > kProtocolVersion || hello.version_max < kProtocolVersion) {
    refuse(connection, RefusalReason::kVersion,
           fmt::format("this server speaks protocol versions {} to {}, the device {} to {}",
                       kProtocolVersion, kProtocolVersion, hello.version_min, hello.version_max),
           actions);
    return;
  }
  if (phase == Phase::kStopping) {
    refuse(connection, farewell, "the server is stopping", actions);
    return;
  }
  connection.greeted = true;
  send(connection.id, Welcome{kProtocolVersion, options.config.server.chunk_bytes, times.heartbeat},
       actions);
}

void RoundCoordinator::State::operator_message(Time now, Connection& connection,
                                               const ClientMessage& message, Actions& actions) {
  if (std::holds_alternative<StatusRequest>(message)) {
    send(connection.id, StatusReply{status_json(now)}, actions);
    return;
  }
  refuse(connection, RefusalReason::kNotAuthorised, "an operator may only ask for the status",
         actions);
}

void RoundCoordinator::State::on_message(Time, Connection& connection, Hello&, Actions& actions) {
  refuse(connection, RefusalReason::kProtocol, "a second Hello", actions);
}

void RoundCoordinator::State::on_message(Time, Connection& connection, StatusRequest&,
                                         Actions& actions) {
  refuse(connection, RefusalReason::kNotAuthorised, "only an operator may ask for the status",
         actions);
}

// ---- checking in

void RoundCoordinator::State::on_message(Time now, Connection& connection, CheckIn& message,
                                         Actions& actions) {
  if (over()) {
    refuse(connection, farewell, "the run is over", actions);
    return;
  }
  if (options.variants) {
    connection.variant = options.variants->number_of(message.conditions.device_class);
  }
  connection.held_model = message.conditions.held_model;
  if (Member* member = cohort.find(connection.client)) {
    // Whatever the device was doing on this connection, it has put it down.
    withdraw(*member);
    member->connection.reset();
    const bool reports = member->undecided() && reporting() && !member->left_sum;
    if (reports || in_sum(*member)) {
      remember_presence(connection, true);
      assign(now, *member, connection, actions);
      return;
    }
  }
  if (asynchronous() && pauses(now, connection, actions)) return;
  if (shut_out(connection, actions)) return;
  const DeviceConditions& conditions = message.conditions;
  const auto reason = ineligible(conditions, connection.variant);
  remember_presence(connection, !reason);
  if (reason) {
    roster.leave_pool(connection);
    send(connection.id, RetryLater{times.busy, *reason}, actions);
    return;
  }
  connection.compressor =
      choose_compressor(compressors(connection.variant), conditions.compressors).value();
  const std::size_t waiting = roster.pool_size() + roster.resting();
  if (!connection.waiting() && waiting >= options.config.selection.max_waiting) {
    ++turned_away;
    send(connection.id, RetryLater{full_pool_window(), "enough devices are waiting"}, actions);
    return;
  }
  roster.join_pool(connection, conditions.num_examples);
  if (asynchronous() && rests(connection.client)) roster.rest(connection);
  send(connection.id, Waiting{}, actions);
}

void RoundCoordinator::State::assign(Time now, Member& member, Connection& connection,
                                     Actions& actions) {
  member.connection = connection.id;
  const ModelVersion& task = *member.version;
  const std::optional<Time> until = asynchronous() ? std::optional(member.deadline) : deadline;
  const Duration left = until ? std::max(*until - now, Duration(0)) : Duration(0);
  const SharedBytes& blob = task.model.sent_to(member.variant);
  Assignment assignment{run,         member.round, plan_for(member), blob.digest(),
                        blob.size(), left,         aggregation};
  for (const ModelDifference& difference : task.model.differences) {
    if (difference.model == assignment.model && difference.delta.base == connection.held_model) {
      assignment.delta = difference.delta;
    }
  }
  send(connection.id, std::move(assignment), actions);
}

/// What this device may ask for: its model, or a difference that leads to it; null: nothing else.
const SharedBytes* RoundCoordinator::State::blob_for(const Member& member,
                                                     const Digest& digest) const {
  const EncodedModel& given = member.version->model;
  const SharedBytes& sent = given.sent_to(member.variant);
  if (sent.digest() == digest) return &sent;
  for (const ModelDifference& difference : given.differences) {
    if (difference.delta.blob == digest && difference.model == sent.digest()) {
      return &difference.bytes;
    }
  }
  return nullptr;
}

/// As this device is sent it: of its class, with the compressor that was chosen for it.
TrainingPlan RoundCoordinator::State::plan_for(const Member& member) const {
  const TrainingPlan& plan = member.version->plan;
  TrainingPlan sent =
      member.variant == 0 ? plan : (*options.variants)[member.variant].plan_of(plan);
  sent.compressor = compressors(member.variant)[member.compressor].name;
  return sent;
}

std::optional<std::string> RoundCoordinator::State::ineligible(const DeviceConditions& conditions,
                                                               std::uint32_t variant) const {
  const SelectionConfig& selection = options.config.selection;
  const std::string& precision =
      variant == 0 ? options.plan.precision : (*options.variants)[variant].precision;
  if (conditions.num_examples == 0) return "the device has no examples";
  if (selection.require_charging && !conditions.charging) return "the device is not charging";
  if (selection.require_unmetered && conditions.metered) return "the network is metered";
  if (!contains(conditions.precisions, precision)) {
    return fmt::format("the device cannot train in {}", precision);
  }
  const auto& offered = compressors(variant);
  if (!choose_compressor(offered, conditions.compressors)) {
    return fmt::format("the device cannot encode updates as {}", names_of(offered));
  }
  return std::nullopt;
}

const std::vector<OfferedCompressor>& RoundCoordinator::State::compressors(
    std::uint32_t variant) const {
  return variant == 0 ? options.compressors : (*options.variants)[variant].compressors;
}

RetryWindow RoundCoordinator::State::full_pool_window() const {
  // Ahead of this device are the waiting and those turned away before it: the window grows with
  // them, so that their return is spread out and does not come as a wave.
  const std::uint64_t places = std::max<std::uint64_t>(roster.pool_size(), 1);
  const std::uint64_t ahead = roster.pool_size() + turned_away;
  const auto factor = static_cast<std::int64_t>(
      std::clamp<std::uint64_t>((ahead + places - 1) / places, 1, kLongestBusyFactor));
  return {times.busy.delay_min, times.busy.delay_max * factor};
}

// ---- working on a task

void RoundCoordinator::State::on_message(Time, Connection& connection, BlobRequest& message,
                                         Actions& actions) {
  const Member* member = cohort.find(connection.client);
  const bool selected = phase == Phase::kReporting && member != nullptr && member->undecided();
  const SharedBytes* found = selected ? blob_for(*member, message.blob) : nullptr;
  if (found == nullptr) {
    send(connection.id, BlobMissing{message.blob}, actions);  // merely late is no enemy
    return;
  }
  const SharedBytes& blob = *found;
  if (message.length == 0 || message.offset >= blob.size()) {
    refuse(connection, RefusalReason::kProtocol,
           fmt::format("a request for {} bytes at offset {} of a blob of {} bytes", message.length,
                       message.offset, blob.size()),
           actions);
    return;
  }
  const std::uint64_t longest =
      std::min<std::uint64_t>(std::max(options.config.server.chunk_bytes, 1U), message.length);
  const std::uint64_t length = std::min<std::uint64_t>(longest, blob.size() - message.offset);
  figures().bytes_down += length;
  send(connection.id,
       BlobChunk{
           message.blob, message.offset,
           blob.slice(static_cast<std::size_t>(message.offset), static_cast<std::size_t>(length))},
       actions);
}

void RoundCoordinator::State::on_message(Time, Connection& connection, Progress& message,
                                         Actions& actions) {
  const Member* member = cohort.find(connection.client);
  const bool wanted = message.run == run && member != nullptr && message.round == member->round &&
                      ((reporting() && member->undecided()) || in_sum(*member));
  send(connection.id, ProgressReply{message.run, message.round, wanted}, actions);
}

void RoundCoordinator::State::on_message(Time, Connection& connection, Decline& message,
                                         Actions& actions) {
  Member* member = cohort.find(connection.client);
  if (member == nullptr || !(reporting() || in_sum(*member))) return;
  if (message.run != run || message.round != member->round) return;
  const std::string said =
      fmt::format("client {} declined round {}: {}", value_of(connection.client),
                  value_of(message.round), printable(message.reason));
  if (summing() && (member->accepted() || member->state == MemberState::kJudging)) {
    leave_sum(*member);
    actions.emplace_back(Note{said});
    return;
  }
  if (summing()) sum->leave(connection.client);
  if (message.revealed && member->undecided()) ++revealed_before;
  if (!member->undecided() || member->state == MemberState::kJudging) return;
  withdraw(*member);
  drop_upload(*member, actions);
  member->connection.reset();
  cohort.decide(*member, MemberState::kLeft);
  remember_missed(*member);
  if (asynchronous()) decided(*member);
  actions.emplace_back(Note{said});
}

}  // namespace covey::server
