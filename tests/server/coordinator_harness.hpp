#pragma once

#include <algorithm>
#include <covey/digest.hpp>
#include <covey/server/round_coordinator.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace covey::server::testing {

inline constexpr std::size_t kModelFloats = 64;
inline constexpr std::size_t kModelBytes = 4 * kModelFloats;
inline constexpr std::uint32_t kChunkBytes = 32;  // a window is 128 bytes, an update two windows

inline SharedBytes filled(std::uint8_t value, std::size_t size = kModelBytes) {
  return SharedBytes(std::vector<std::byte>(size, std::byte{value}));
}

/// As devices that train in fp32 are sent it: the very bytes that the server keeps.
inline EncodedModel fp32_model(std::uint8_t value) {
  const SharedBytes bytes = filled(value);
  return {bytes, bytes};
}

/// Everything the coordinator sent to or about one device, with a script that answers as a correct
/// device does, one message at a time.
struct ScriptedDevice {
  ClientId client{};
  Role role = Role::kDevice;
  DeviceConditions conditions;
  std::optional<ConnectionId> connection;
  bool automatic = true;   ///< plays the whole conversation; otherwise the test speaks for it
  bool reports = true;     ///< otherwise it never gets further than the model
  bool reconnects = true;  ///< when its connection is closed
  std::uint64_t stop_at = kModelBytes;  ///< sends no byte of its update at or beyond this
  std::optional<Assignment> task;
  std::uint64_t downloaded = 0;
  std::uint64_t sent = 0;  ///< bytes of the update
  std::vector<ServerMessage> inbox;

  SharedBytes update() const { return filled(static_cast<std::uint8_t>(value_of(client))); }

  template <typename Message>
  std::size_t count() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        inbox, [](const auto& m) { return std::holds_alternative<Message>(m); }));
  }
  template <typename Message>
  const Message* last() const {
    for (auto m = inbox.rbegin(); m != inbox.rend(); ++m) {
      if (const auto* found = std::get_if<Message>(&*m)) return found;
    }
    return nullptr;
  }

  Report report() const {
    Report report;
    report.run = task->run;
    report.round = task->round;
    report.blob = sha256(update().span());
    report.blob_size = kModelBytes;
    report.weight = 1;
    report.num_examples = conditions.num_examples;
    report.steps = 5;
    report.train_loss = static_cast<double>(value_of(client));
    return report;
  }
};

/// What happens to a message on its way to the server.
enum class Fate { kDeliver, kTwice, kLoseConnectionBefore, kLoseConnectionAfter };

inline CoordinatorOptions default_options(std::uint32_t population) {
  CoordinatorOptions options;
  options.population = population;
  options.config.seed = 7;
  options.config.num_rounds = 1;
  options.config.selection.fraction_fit = 1.0;
  options.config.server.chunk_bytes = kChunkBytes;
  options.compressors = {OfferedCompressor::of_size("fp32", kModelBytes)};
  return options;
}

/// A coordinator, scripted devices and a pipeline that answers at once, in one thread and virtual
/// time.
class CoordinatorHarness {
 public:
  explicit CoordinatorHarness(CoordinatorOptions options, RoundNumber committed = {},
                              EncodedModel model = fp32_model(0))
      : coordinator(std::move(options), RunState{kRun, committed, std::move(model)}) {}

  static constexpr RunId kRun{99};

  RoundCoordinator coordinator;
  Time now{};
  std::map<ClientId, ScriptedDevice> devices;
  std::function<Fate(const ScriptedDevice&, const ClientMessage&)> fate;

  // ---- the pipeline's behaviour
  bool judges_at_once = true;
  bool opens_at_once = true;
  bool stores_at_once = true;
  std::optional<Error> open_error, write_error, apply_error, store_error;
  std::optional<std::pair<RejectReason, std::string>> rejection;
  std::vector<Event> held;  ///< answers not given yet
  double accuracy = 0.5;
  std::optional<SharedBytes> sent_model;  ///< what devices are sent instead of the fp32 parameters

  // ---- what was seen
  std::vector<Action> log;  ///< every action but Send
  std::map<std::pair<RoundNumber, ClientId>, int>
      counted;  ///< of the sum at hand and those applied
  std::map<UploadKey, std::vector<std::byte>> spool;
  std::vector<RoundMetrics> stored, published;
  std::optional<RunFinished> finished;
  std::size_t concurrent_uploads = 0, most_uploads = 0;
  std::vector<ClientId> opened;  ///< in order of OpenUpload
  std::optional<Time> timer;
  std::size_t timers_set = 0;

  void start() {
    Actions actions;
    coordinator.start(now, actions);
    carry_out(actions);
    settle();
  }

  ScriptedDevice& add(std::uint64_t client, Role role = Role::kDevice) {
    ScriptedDevice& device = devices[ClientId{client}];
    device.client = ClientId{client};
    device.role = role;
    device.conditions.num_examples = 10;
    device.conditions.precisions = {"fp32"};
    device.conditions.compressors = {"fp32"};
    return device;
  }
  /// Devices first..last, connected and checked in.
  void add_fleet(std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t client = first; client <= last; ++client) connect(add(client));
    settle();
  }
  ScriptedDevice& device(std::uint64_t client) { return devices.at(ClientId{client}); }

  void connect(ScriptedDevice& device) {
    device.connection = ConnectionId{next_connection_++};
    owners_[*device.connection] = device.client;
    tell(DeviceConnected{*device.connection, device.client, device.role});
    if (device.automatic) say(device, Hello{});
  }
  void lose_connection(ScriptedDevice& device) {
    if (!device.connection) return;
    tell(DeviceGone{*device.connection});
    device.connection.reset();
    device.sent = 0;
  }
  void say(ScriptedDevice& device, ClientMessage message) {
    if (!device.connection) return;
    const Fate what = fate ? fate(device, message) : Fate::kDeliver;
    if (what == Fate::kLoseConnectionBefore || what == Fate::kLoseConnectionAfter) {
      const ConnectionId lost = *device.connection;
      device.connection.reset();
      if (what == Fate::kLoseConnectionAfter) tell(Received{lost, std::move(message)});
      tell(DeviceGone{lost});
      connect(device);
      return;
    }
    if (what == Fate::kTwice) tell(Received{*device.connection, message});
    tell(Received{*device.connection, std::move(message)});
  }
  /// Says it and waits until everything has been answered.
  void speak(ScriptedDevice& device, ClientMessage message) {
    say(device, std::move(message));
    settle();
  }

  void tell(Event event) { events_.push_back(std::move(event)); }
  void settle() {
    while (!events_.empty()) {
      Event event = std::move(events_.front());
      events_.pop_front();
      Actions actions;
      coordinator.handle(now, std::move(event), actions);
      carry_out(actions);
    }
  }
  void release_held() {
    for (Event& event : std::exchange(held, {})) tell(std::move(event));
    settle();
  }
  void advance(Duration by) {
    const Time until = now + by;
    while (timer && *timer <= until && !finished) {
      now = std::max(now, *timer);
      timer.reset();
      tell(TimerFired{});
      settle();
    }
    now = until;
  }

  template <typename Wanted>
  std::size_t count() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        log, [](const auto& a) { return std::holds_alternative<Wanted>(a); }));
  }
  /// Clients with a task of the current cohort, in order.
  std::vector<ClientId> assigned() const {
    std::vector<ClientId> clients;
    for (const auto& [client, device] : devices) {
      if (device.count<Assignment>() > 0) clients.push_back(client);
    }
    return clients;
  }

  void chunk(ScriptedDevice& device, std::uint64_t offset, std::size_t size) {
    say(device, BlobChunk{sha256(device.update().span()), offset,
                          device.update().slice(static_cast<std::size_t>(offset), size)});
  }

 private:
  void carry_out(Actions& actions) {
    for (Action& action : actions) {
      if (auto* send = std::get_if<Send>(&action)) {
        receive(send->connection, std::move(send->message));
        continue;
      }
      log.push_back(action);
      std::visit([this](auto& a) { perform(a); }, action);
    }
  }

  // ---- actions
  void perform(Send&) {}
  void perform(Note&) {}
  void perform(Close& close) {
    const auto owner = owners_.find(close.connection);
    ScriptedDevice& device = devices.at(owner->second);
    if (device.connection != close.connection) return;
    device.connection.reset();
    device.sent = 0;
    if (device.reconnects && !finished) connect(device);
  }
  void perform(SetTimer& set) {
    timer = set.at;
    ++timers_set;
  }
  void answer(bool at_once, Event event) {
    if (at_once) {
      tell(std::move(event));
    } else {
      held.push_back(std::move(event));
    }
  }
  void perform(OpenUpload& open) {
    opened.push_back(open.key.client);
    most_uploads = std::max(most_uploads, ++concurrent_uploads);
    if (open_error) {
      answer(opens_at_once, UploadOpened{open.key, *open_error});
      return;
    }
    answer(opens_at_once, UploadOpened{open.key, std::uint64_t{spool[open.key].size()}});
  }
  void perform(WriteUpload& write) {
    if (write_error) {
      tell(UploadFailed{write.key, *write_error});
      return;
    }
    auto& bytes = spool[write.key];
    COVEY_ASSERT(write.offset == bytes.size());
    bytes.insert(bytes.end(), write.payload.span().begin(), write.payload.span().end());
  }
  void perform(DropUpload& drop) { spool.erase(drop.key); }
  void perform(JudgeUpdate& judge) {
    --concurrent_uploads;
    auto verdict = rejection;
    const auto bytes = spool.find(judge.key);
    if (bytes == spool.end() || sha256(bytes->second) != judge.key.blob) {
      verdict = std::pair(RejectReason::kMalformed, std::string("the hash does not match"));
    }
    if (!verdict) ++counted[{judge.key.round, judge.key.client}];
    answer(judges_at_once, UpdateJudged{judge.key, verdict});
  }
  void perform(BeginSum& begin) {
    concurrent_uploads = 0;
    std::erase_if(counted, [&](const auto& entry) { return entry.first.first == begin.round; });
  }
  void perform(ApplyStrategy& apply) {
    if (apply_error) {
      tell(StrategyApplied{apply.round, *apply_error});
    } else {
      const SharedBytes model = filled(static_cast<std::uint8_t>(value_of(apply.round)));
      tell(StrategyApplied{apply.round, EncodedModel{model, sent_model ? *sent_model : model}});
    }
  }
  void perform(CommitRound& commit) {
    if (store_error) {
      tell(RoundStored{commit.metrics.round, *store_error});
      return;
    }
    stored.push_back(commit.metrics);
    answer(stores_at_once, RoundStored{commit.metrics.round, {}});
  }
  void perform(EvaluateModel& evaluate) { tell(ModelEvaluated{evaluate.round, accuracy, 1.5}); }
  void perform(PublishMetrics& publish) { published.push_back(publish.metrics); }
  void perform(RunFinished& end) { finished = end; }

  // ---- devices
  void receive(ConnectionId connection, ServerMessage message) {
    ScriptedDevice& device = devices.at(owners_.at(connection));
    if (device.connection != connection) return;
    device.inbox.push_back(message);
    if (device.automatic) std::visit([&](auto& m) { react(device, m); }, message);
  }
  template <typename Message>
  void react(ScriptedDevice&, Message&) {}
  void react(ScriptedDevice& device, Welcome&) {
    if (device.role == Role::kDevice) say(device, CheckIn{device.conditions});
  }
  void react(ScriptedDevice& device, Assignment& assignment) {
    const bool same = device.task && device.task->round == assignment.round &&
                      device.task->model == assignment.model;
    if (!same) device.downloaded = 0;
    device.task = assignment;
    device.sent = 0;
    work(device);
  }
  void react(ScriptedDevice& device, BlobChunk& part) {
    if (part.offset != device.downloaded) return;
    device.downloaded += part.payload.size();
    work(device);
  }
  void work(ScriptedDevice& device) {
    if (device.downloaded < device.task->model_size) {
      say(device, BlobRequest{device.task->model, device.downloaded, 96});
    } else if (device.reports) {
      say(device, device.report());
    }
  }
  void react(ScriptedDevice& device, UploadGrant& grant) {
    device.sent = std::max(device.sent, grant.offset);
    const std::uint64_t end = std::min<std::uint64_t>(grant.offset + grant.window, device.stop_at);
    const auto connection = device.connection;
    while (device.sent < end && device.connection == connection) {
      const std::size_t size =
          static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, end - device.sent));
      const std::uint64_t offset = device.sent;
      device.sent += size;
      chunk(device, offset, size);
    }
  }
  void react(ScriptedDevice& device, ReportAccepted& answer) { task_done(device, answer.round); }
  void react(ScriptedDevice& device, ReportRejected& answer) { task_done(device, answer.round); }
  void react(ScriptedDevice& device, RoundOver& answer) { task_done(device, answer.round); }
  void task_done(ScriptedDevice& device, RoundNumber round) {
    if (!device.task || device.task->round != round) return;
    device.task.reset();
    say(device, CheckIn{device.conditions});
  }

  std::uint64_t next_connection_ = 1;
  std::map<ConnectionId, ClientId> owners_;
  std::deque<Event> events_;
};

}  // namespace covey::server::testing
