#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// One device against a server (FakeServer: sums in the open) that follows the protocol, in virtual time: every message in either
/// direction is delivered by its own step, so a test can cut the connection after any of them.
namespace covey::client::testing {

using namespace std::chrono_literals;

inline SharedBytes patterned_bytes(std::size_t size, unsigned seed) {
  std::vector<std::byte> bytes(size);
  unsigned state = seed * 2654435761u + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return SharedBytes(std::move(bytes));
}

/// Logistic regression 60 -> 10: 610 parameters, 2440 bytes.
inline TrainingPlan small_plan() {
  TrainingPlan plan;
  plan.strategy = "fedavg";
  plan.model = *preset_model("logistic", {60}, 10);
  return plan;
}
inline constexpr std::size_t kSmallModelBytes = 4 * (60 * 10 + 10);

inline Assignment make_assignment(const SharedBytes& model, std::uint32_t round = 1) {
  Assignment assignment;
  assignment.run = RunId{7};
  assignment.round = RoundNumber{round};
  assignment.plan = small_plan();
  assignment.model = sha256(model.span());
  assignment.model_size = model.size();
  return assignment;
}

inline TrainedUpdate make_update(std::size_t size = 3000, unsigned seed = 9) {
  TrainedUpdate trained;
  trained.update = patterned_bytes(size, seed);
  trained.digest = sha256(trained.update.span());
  trained.weight = 12;
  trained.scalars = {0.5};
  trained.num_examples = 12;
  trained.steps = 24;
  trained.train_loss = 1.25;
  return trained;
}

inline ParticipantOptions small_options() {
  ParticipantOptions options;
  options.client = ClientId{3};
  options.seed = 42;
  options.request_bytes = 256;
  return options;
}

/// Everything of one kind in a list of actions.
template <typename T>
std::vector<T> all(const Actions& actions) {
  std::vector<T> found;
  for (const Action& action : actions) {
    if (const T* item = std::get_if<T>(&action)) found.push_back(*item);
  }
  return found;
}

/// Every message of one kind that a list of actions sends.
template <typename T>
std::vector<T> sent(const Actions& actions) {
  std::vector<T> found;
  for (const Action& action : actions) {
    const Send* send = std::get_if<Send>(&action);
    if (send == nullptr) continue;
    if (const T* item = std::get_if<T>(&send->message)) found.push_back(*item);
  }
  return found;
}

/// Runs one round for one device, then ends the run. Remembers uploaded bytes across connections.
struct FakeServer {
  SharedBytes model = patterned_bytes(kSmallModelBytes, 1);
  Assignment assignment = make_assignment(model);
  std::uint32_t chunk_bytes = 512;
  std::uint32_t window = 1024;
  Duration heartbeat = 10s;
  bool silent = false;
  bool round_done = false;
  std::vector<std::byte> upload;      ///< of the reported update
  std::uint64_t upload_received = 0;  ///< bytes that came, counting repeated ones
  std::optional<Report> report;

  std::vector<ServerMessage> answer(const ClientMessage& message) {
    if (silent) return {};
    return std::visit([this](const auto& m) { return on(m); }, message);
  }

 private:
  using Answers = std::vector<ServerMessage>;
  Answers on(const Hello&) { return {Welcome{kProtocolVersion, chunk_bytes, heartbeat}}; }
  Answers on(const CheckIn&) {
    if (round_done) return {Refusal{RefusalReason::kRunFinished, "done"}};
    return {Waiting{}, assignment};
  }
  Answers on(const BlobRequest& request) {
    REQUIRE(request.offset + request.length <= model.size());
    return {BlobChunk{request.blob, request.offset, model.slice(request.offset, request.length)}};
  }
  Answers on(const Progress& progress) {
    return {ProgressReply{progress.run, progress.round, !round_done}};
  }
  Answers on(const Report& r) {
    if (report) REQUIRE(report->blob == r.blob);
    report = r;
    return grant_or_verdict();
  }
  Answers on(const BlobChunk& chunk) {
    REQUIRE(report);
    REQUIRE(chunk.blob == report->blob);
    REQUIRE(chunk.offset == upload.size());  // in order, nothing twice, nothing skipped
    REQUIRE(chunk.payload.size() <= chunk_bytes);
    const auto bytes = chunk.payload.span();
    upload.insert(upload.end(), bytes.begin(), bytes.end());
    upload_received += bytes.size();
    return grant_or_verdict();
  }
  Answers on(const Decline&) { return {}; }
  Answers on(const StatusRequest&) { return {}; }
  template <typename SecureSumMessage>
  Answers on(const SecureSumMessage&) {
    FAIL("this server sums in the open");
    return {};
  }

  Answers grant_or_verdict() {
    if (upload.size() < report->blob_size)
      return {UploadGrant{report->blob, upload.size(), window}};
    REQUIRE(sha256(upload) == report->blob);
    round_done = true;
    return {ReportAccepted{report->run, report->round, RetryWindow{1s, 2s}}};
  }
};

template <typename Server>
struct BasicWorld {
  explicit BasicWorld(ParticipantOptions options = small_options()) : device(std::move(options)) {}

  Server server;
  Participant device;
  Time now{};
  bool dialling = false;
  bool up = false;
  std::deque<ClientMessage> to_server;
  std::deque<ServerMessage> to_device;
  std::optional<Time> timer;
  std::optional<TrainingTask> training;
  Time training_ends{};
  Duration training_takes = 3s;
  TrainedUpdate update = make_update();
  std::deque<MaskUpdate> masking;  ///< under way
  bool masks = true;               ///< otherwise it stays so
  std::optional<std::uint32_t> cut_after;  ///< messages delivered

  std::uint32_t delivered = 0;
  std::uint32_t cuts = 0;
  std::uint32_t trainings = 0;
  std::uint32_t cancels = 0;
  std::uint32_t maskings = 0;
  std::uint64_t model_bytes_delivered = 0;
  std::optional<Finished> finished;
  Actions log;  ///< every action so far

  void start() {
    Actions actions;
    device.start(now, actions);
    carry_out(std::move(actions));
  }

  Actions event(Event e) {
    Actions actions;
    device.handle(now, std::move(e), actions);
    carry_out(actions);
    return actions;
  }
  Actions receive(ServerMessage message) { return event(Received{std::move(message)}); }

  void cut() {
    to_server.clear();
    to_device.clear();
    up = false;
    dialling = false;
    ++cuts;
    event(ConnectionLost{"cut by the test"});
  }

  /// One delivery, or the passing of time to the next thing due. False: nothing will happen any
  /// more.
  bool step() {
    if (dialling) {
      dialling = false;
      up = true;
      event(Connected{});
      return true;
    }
    if (!to_server.empty() || !to_device.empty()) {
      deliver();
      if (++delivered == cut_after) cut();
      return true;
    }
    if (training && training_ends <= now) {
      const TrainingTask task = *training;
      training.reset();
      event(TrainingFinished{task.run, task.round, update, training_takes});
      return true;
    }
    if (masks && !masking.empty()) {
      const MaskUpdate work = std::move(masking.front());
      masking.pop_front();
      event(UpdateMasked{work.round, work.job->run(work.format, work.update.span())});
      return true;
    }
    std::optional<Time> next = timer;
    if (training && (!next || training_ends < *next)) next = training_ends;
    if (!next) return false;
    now = std::max(now, *next);
    if (timer && *timer <= now) {
      timer.reset();
      event(TimerFired{});
    }
    return true;
  }

  template <typename Predicate>
  void run_until(Predicate done) {
    for (int steps = 0; !done(); ++steps) {
      REQUIRE(steps < 10000);
      REQUIRE(step());
    }
  }
  void run_until_finished() {
    run_until([this] { return finished.has_value(); });
  }
  void run_until_phase(std::string_view name) {
    run_until([&] { return device.phase_name() == name; });
  }

 private:
  void deliver() {
    if (!to_server.empty()) {
      const ClientMessage message = std::move(to_server.front());
      to_server.pop_front();
      for (ServerMessage& answer : server.answer(message)) to_device.push_back(std::move(answer));
      return;
    }
    ServerMessage message = std::move(to_device.front());
    to_device.pop_front();
    if (const BlobChunk* chunk = std::get_if<BlobChunk>(&message)) {
      REQUIRE(chunk->offset == model_bytes_delivered);  // nothing below the resume point again
      model_bytes_delivered += chunk->payload.size();
    }
    event(Received{std::move(message)});
  }

  void carry_out(const Actions& actions) {
    for (const Action& action : actions) {
      log.push_back(action);
      std::visit([this](const auto& a) { carry_out_one(a); }, action);
    }
  }
  void carry_out_one(const Connect&) {
    REQUIRE_FALSE(up);
    REQUIRE_FALSE(dialling);
    dialling = true;
  }
  void carry_out_one(const Disconnect&) {
    up = false;
    dialling = false;
    to_server.clear();
    to_device.clear();
  }
  void carry_out_one(const Send& send) {
    REQUIRE(up);
    to_server.push_back(send.message);
  }
  void carry_out_one(const SetTimer& set) { timer = set.at; }
  void carry_out_one(const StartTraining& start_training) {
    REQUIRE_FALSE(training);
    training = start_training.task;
    training_ends = now + training_takes;
    ++trainings;
  }
  void carry_out_one(const CancelTraining&) {
    REQUIRE(training);
    training.reset();
    ++cancels;
  }
  void carry_out_one(const MaskUpdate& mask) {
    masking.push_back(mask);
    ++maskings;
  }
  void carry_out_one(const Note&) {}
  void carry_out_one(const Finished& f) {
    REQUIRE_FALSE(finished);
    finished = f;
  }
};
using World = BasicWorld<FakeServer>;

}  // namespace covey::client::testing
