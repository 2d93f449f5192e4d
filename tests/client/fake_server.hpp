#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/client/participant.hpp>
#include <covey/client/spool.hpp>
#include <covey/compression/model_delta.hpp>
#include <covey/proto/codec.hpp>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "memory_disk.hpp"

/// One device against a server (FakeServer: sums in the open) that follows the protocol, in virtual
/// time: every message in either direction is delivered by its own step, so a test can cut the
/// connection after any of them.
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
  options.conditions.num_examples = 12;
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
  bool more_rounds = false;
  SharedBytes difference;  ///< to another model, if the assignment has one
  bool forgets_difference = false;
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
    if (round_done && more_rounds) return {Waiting{}};
    if (round_done) return {Refusal{RefusalReason::kRunFinished, "done"}};
    return {Waiting{}, assignment};
  }
  Answers on(const BlobRequest& request) {
    const bool is_difference = assignment.delta && request.blob == assignment.delta->blob;
    if (is_difference && forgets_difference) return {BlobMissing{request.blob}};
    const SharedBytes& blob = is_difference ? difference : model;
    REQUIRE(request.offset + request.length <= blob.size());
    return {BlobChunk{request.blob, request.offset, blob.slice(request.offset, request.length)}};
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
  explicit BasicWorld(ParticipantOptions of_device = small_options())
      : options(std::move(of_device)), device(options) {}

  Server server;
  ParticipantOptions options;  ///< of every life of the device
  Participant device;
  Time now{};
  bool dialling = false;
  bool up = false;
  std::deque<ClientMessage> to_server;
  std::deque<ServerMessage> to_device;
  std::optional<Time> timer;
  std::optional<TrainingTask> training;
  Time training_ends{};
  bool resting = false;
  Duration training_takes = 3s;
  TrainedUpdate update = make_update();
  std::deque<MaskUpdate> masking;          ///< under way
  bool masks = true;                       ///< otherwise it stays so
  std::optional<std::uint32_t> cut_after;  ///< messages delivered

  std::uint32_t delivered = 0;
  std::uint32_t cuts = 0;
  std::uint32_t trainings = 0;
  std::uint32_t cancels = 0;
  std::uint32_t maskings = 0;
  std::uint64_t model_bytes_delivered = 0;
  bool model_bytes_checked = true;
  std::optional<Finished> finished;
  std::function<void(const ClientMessage&)> on_sent = nullptr;
  std::function<void(const TrainingTask&)> on_training = nullptr;
  Actions log;  ///< every action so far

  std::shared_ptr<MemoryDisk> disk = std::make_shared<MemoryDisk>();
  std::unique_ptr<Spool> spool;
  std::uint64_t max_disk_bytes = 1 << 20;
  std::vector<std::string> disk_notes;
  std::chrono::system_clock::time_point wall_begin{1'700'000'000s};
  std::optional<std::uint32_t> kill_after;  ///< actions carried out
  std::uint32_t carried_out = 0;
  std::uint32_t kills = 0;
  bool killed = false;
  bool sent_survives = false;
  Duration down_for = 100ms;
  std::uint64_t resume_point = 0, model_bytes_lost = 0;

  void start() {
    Actions actions;
    device.start(now, actions);
    carry_out(std::move(actions));
  }

  Actions event(Event e) {
    Actions actions;
    device.handle(now, std::move(e), actions);
    carry_out(actions);
    if (killed) kill();
    return actions;
  }
  Actions receive(ServerMessage message) { return event(Received{std::move(message)}); }

  // ---- the device's disk, and processes that end

  Moment moment() const { return {now, wall_begin + (now - Time{})}; }

  /// The device has a model already, and the round's differs from it in every eighth value: so does
  /// what is offered.
  void offer_difference() {
    std::vector<std::byte> bytes(server.model.span().begin(), server.model.span().end());
    for (std::size_t i = 0; i < bytes.size(); i += 32) bytes[i] ^= std::byte{1};
    const SharedBytes base(std::move(bytes));
    auto delta = compression::encode_model_delta(base.span(), server.model.span(), 4).value();
    server.difference = delta.bytes;
    server.assignment.delta = ModelDelta{sha256(base.span()), sha256(delta.bytes.span()),
                                         delta.bytes.size(), delta.encoding};
    options.request_bytes = 64;
    open_spool();
    SavedWork work;
    work.model = SavedModel{sha256(base.span()), base};
    spool->save(work, moment());
  }

  /// The device's first process.
  void switch_on() {
    boot();
    if (killed) kill();
  }

  void open_spool() {
    SpoolOptions keeping;
    keeping.client = options.client;
    keeping.encode = [](const Assignment& a) { return proto::encode(ServerMessage(a)).header; };
    keeping.decode = [](std::span<const std::byte> bytes) -> Result<Assignment> {
      COVEY_ASSIGN(ServerMessage message, proto::decode_server_message(bytes, {}));
      return std::get<Assignment>(std::move(message));
    };
    keeping.note = [this](std::string_view text) { disk_notes.emplace_back(text); };
    keeping.max_bytes = max_disk_bytes;
    spool.reset();
    spool = std::make_unique<Spool>(disk->open(), std::move(keeping));
  }

  /// A new process of the device, with what is on the disk.
  void boot() {
    open_spool();
    ParticipantOptions with_saved = options;
    with_saved.saves_work = true;
    with_saved.saved = spool->load(moment());
    // The resume point: what is asked for again lies behind it.
    const SavedWork& saved = *with_saved.saved;
    const bool has_model = saved.model && saved.model->digest == server.assignment.model;
    resume_point = has_model        ? model_bytes_delivered
                   : saved.download ? saved.download->held.size()
                                    : 0;
    const std::uint64_t lost =
        finished || server.round_done
            ? 0
            : model_bytes_delivered - std::min(model_bytes_delivered, resume_point);
    model_bytes_lost += lost;
    model_bytes_delivered -= lost;
    device = Participant(std::move(with_saved));
    Actions actions;
    device.start(now, actions);
    carry_out(std::move(actions));
  }

  /// kill -9 between two actions, or whenever this is called. What the device sent before may still
  /// reach the server.
  void kill() {
    killed = false;
    ++kills;
    while (sent_survives && !to_server.empty()) {
      static_cast<void>(server.answer(to_server.front()));
      to_server.pop_front();
    }
    to_server.clear();
    to_device.clear();
    up = dialling = resting = false;
    timer.reset();
    training.reset();
    masking.clear();
    now += down_for;
    boot();
  }

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
    if (training && !resting && training_ends <= now) {
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
    if (training && !resting && (!next || training_ends < *next)) next = training_ends;
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
      // Nothing below the resume point again.
      if (model_bytes_checked) REQUIRE(chunk->offset == model_bytes_delivered);
      model_bytes_delivered += chunk->payload.size();
    }
    event(Received{std::move(message)});
  }

  void carry_out(const Actions& actions) {
    for (const Action& action : actions) {
      log.push_back(action);
      std::visit([this](const auto& a) { carry_out_one(a); }, action);
      killed = ++carried_out == kill_after;
      if (killed) return;
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
    if (on_sent) on_sent(send.message);
    to_server.push_back(send.message);
  }
  void carry_out_one(const SetTimer& set) { timer = set.at; }
  void carry_out_one(const StartTraining& start_training) {
    REQUIRE_FALSE(training);
    REQUIRE_FALSE(resting);
    training = start_training.task;
    training_ends = now + training_takes;
    ++trainings;
    if (on_training) on_training(start_training.task);
  }
  void carry_out_one(const CancelTraining&) {
    REQUIRE(training);
    training.reset();
    resting = false;
    ++cancels;
  }
  void carry_out_one(const PauseTraining&) {
    REQUIRE(training);
    REQUIRE_FALSE(resting);
    resting = true;
  }
  void carry_out_one(const ResumeTraining&) {
    REQUIRE(resting);
    resting = false;
    training_ends = std::max(training_ends, now);
  }
  void carry_out_one(const Save& save) {
    if (!spool) return;
    spool->save(*save.work, moment());
    device.use_stored([this](const SharedBytes& bytes) { return spool->stored(bytes); });
  }
  void carry_out_one(const AppendDownload& piece) {
    if (spool) spool->append(piece, now);
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
