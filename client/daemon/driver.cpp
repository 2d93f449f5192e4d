#include "client/daemon/driver.hpp"

#include <covey/proto/codec.hpp>
#include <new>
#include <utility>

namespace covey::client {
namespace {

constexpr auto kTrainingWatch = std::chrono::seconds(1);  // how often progress is looked at

}  // namespace

TrainerPool::TrainerPool(std::function<std::unique_ptr<Trainer>()> make,
                         std::function<void(Trainer&, ClientId)> prepare)
    : make_(std::move(make)), prepare_(std::move(prepare)) {}

Result<TrainedUpdate> TrainerPool::train(const TrainingTask& task, const TrainingControl& control) {
  std::unique_ptr<Trainer> trainer;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      trainer = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (!trainer) trainer = make_();
  prepare_(*trainer, task.client);
  auto result = trainer->train(task, control);
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(trainer));
  return result;
}

Result<std::unique_ptr<Spool>> open_spool(const std::string& directory, ClientId client,
                                          std::uint64_t max_bytes, Log log,
                                          SuddenDeath* death) {
  COVEY_ASSIGN(auto folder, open_state_folder(directory));
  if (death != nullptr) folder = mortal_folder(std::move(folder), *death);
  SpoolOptions options;
  options.client = client;
  options.max_bytes = max_bytes;
  options.encode = [](const Assignment& assignment) {
    return proto::encode(ServerMessage(assignment)).header;
  };
  options.decode = [](std::span<const std::byte> bytes) -> Result<Assignment> {
    COVEY_ASSIGN(ServerMessage message, proto::decode_server_message(bytes, {}));
    if (auto* assignment = std::get_if<Assignment>(&message)) return std::move(*assignment);
    return malformed("it is another message");
  };
  options.note = [log = std::move(log)](std::string_view text) {
    if (log) log(LogLevel::kWarning, text);
  };
  return std::make_unique<Spool>(std::move(folder), std::move(options));
}

Driver::Driver(transport::EventLoop& loop, std::unique_ptr<transport::Dialer> dialer,
               ParticipantOptions options, TrainerPool& trainers, transport::WorkerPool& workers,
               Host host)
    : loop_(loop),
      dialer_(std::move(dialer)),
      host_(std::move(host)),
      participant_(with_saved_work(std::move(options), host_.spool.get(), moment())),
      trainers_(trainers),
      workers_(workers),
      timer_(loop, [this] { tell(TimerFired{}); }),
      training_watch_(loop, [this] { look_at_training(); }),
      away_timer_(loop, [this] { connect(); }) {}

Driver::~Driver() {
  *alive_ = false;
  cancel_training();
}

void Driver::start() {
  Actions actions;
  participant_.start(loop_.now(), actions);
  carry_out(actions);
  tell_host();
}

void Driver::stop() { tell(StopRequested{}); }

void Driver::change_conditions(DeviceConditions conditions, Permissions permissions) {
  tell(ConditionsChanged{std::move(conditions), std::move(permissions)});
}

void Driver::log(LogLevel level, std::string_view text) const {
  if (host_.log) host_.log(level, text);
}

/// For tests of what is left when the process ends here.
void Driver::step() const {
  if (host_.death != nullptr) host_.death->step();
}

void Driver::on_message(ServerMessage message) {
  step();
  transfers_.received(message);
  if (!drop_out_.leaves_at || !drop_out_.leaves_at(dialer_->identity().client, message)) {
    return tell(Received{std::move(message)});
  }
  away_until_ = loop_.now() + drop_out_.away;
  ++attempt_;
  forget_connection();
  tell(ConnectionLost{"dropping out, as the run file says"});
}

void Driver::connect() {
  if (loop_.now() < away_until_) return away_timer_.set(away_until_);
  const std::uint64_t attempt = ++attempt_;
  auto alive = alive_;
  dialer_->connect(
      {.on_open =
           [this, alive, attempt](std::shared_ptr<transport::Connection> connection) {
             if (!*alive || attempt != attempt_) {
               connection->close();
               return;
             }
             connection_ = std::move(connection);
             transfers_.connected();
             refused_message_ = false;
             tell(Connected{});
           },
       .on_frame =
           [this, alive, attempt](std::span<const std::byte> header, SharedBytes payload) {
             if (!*alive || attempt != attempt_) return;
             auto message = proto::decode_server_message(header, std::move(payload));
             if (message.ok()) {
               on_message(std::move(*message));
               return;
             }
             log(LogLevel::kWarning, "message of the server refused: " + message.error().message);
             refused_message_ = true;
             if (connection_) connection_->close();
           },
       .on_closed =
           [this, alive, attempt](const Error& reason) {
             if (*alive) on_closed(attempt, reason);
           }});
}

void Driver::on_closed(std::uint64_t attempt, const Error& reason) {
  if (attempt != attempt_) return;
  forget_connection();
  ++attempt_;
  const bool refused_message = std::exchange(refused_message_, false);
  if (finished_) return;
  // A certificate that was refused will be refused again: expired, revoked, or of another run. A
  // server that restarts with a new list deserves a few tries.
  constexpr std::uint32_t kMostRefusals = 5;
  const bool refused = reason.message.find("refused our certificate") != std::string::npos;
  refusals_ = refused ? refusals_ + 1 : 0;
  if (refusals_ >= kMostRefusals) {
    cancel_training();
    return finish({false, reason.message});
  }
  tell(ConnectionLost{reason.message, refused_message});
}

void Driver::finish(Finished finished) {
  finished_ = std::move(finished);
  timer_.cancel();
  training_watch_.cancel();
  away_timer_.cancel();
  if (host_.on_finished) host_.on_finished();
}

/// Closes it, if it is not closed yet.
void Driver::forget_connection() {
  const auto connection = std::exchange(connection_, nullptr);
  if (!connection) return;
  bytes_sent_ += connection->bytes_sent();
  bytes_received_ += connection->bytes_received();
  connection->close();
}

void Driver::tell(Event event) {
  if (finished_) return;
  Actions actions;
  participant_.handle(loop_.now(), std::move(event), actions);
  carry_out(actions);
  tell_host();
}

void Driver::tell_host() {
  if (participant_.rounds_accepted() != accepted_told_) {
    accepted_told_ = participant_.rounds_accepted();
    if (host_.on_accepted) host_.on_accepted(*participant_.last_counted());
  }
  if (participant_.phase_name() == phase_told_) return;
  phase_told_ = participant_.phase_name();
  if (host_.on_phase) host_.on_phase(phase_told_);
}

void Driver::carry_out(Actions& actions) {
  for (Action& action : actions) {
    step();
    if (auto* send = std::get_if<Send>(&action)) {
      if (!connection_) continue;
      if (host_.spool && !host_.spool->may_send(send->message, moment())) {
        wait_for_disk();
        continue;
      }
      transfers_.sent(send->message);
      connection_->send(proto::encode(send->message));
    } else if (const auto* timer = std::get_if<SetTimer>(&action)) {
      timer_.set(timer->at);
    } else if (std::holds_alternative<Connect>(action)) {
      connect();
    } else if (std::holds_alternative<Disconnect>(action)) {
      ++attempt_;  // what this connection still says is stale
      forget_connection();
    } else if (auto* start = std::get_if<StartTraining>(&action)) {
      start_training(std::move(start->task));
    } else if (std::holds_alternative<CancelTraining>(action)) {
      cancel_training();
      training_watch_.cancel();
    } else if (std::holds_alternative<PauseTraining>(action)) {
      pause_training(true);
    } else if (std::holds_alternative<ResumeTraining>(action)) {
      pause_training(false);
    } else if (const auto* saving = std::get_if<Save>(&action)) {
      save(*saving->work);
    } else if (const auto* piece = std::get_if<AppendDownload>(&action)) {
      if (host_.spool) host_.spool->append(*piece, loop_.now());
    } else if (auto* masking = std::get_if<MaskUpdate>(&action)) {
      start_masking(std::move(*masking));
    } else if (const auto* note = std::get_if<Note>(&action)) {
      log(LogLevel::kInfo, note->text);
    } else if (auto* end = std::get_if<Finished>(&action)) {
      finish(std::move(*end));
    }
  }
}

/// What the device was about to say binds it, and the record of that is not on disk: it stays away
/// until there may be room. What else this batch sends is dropped with the connection.
void Driver::wait_for_disk() {
  constexpr Duration kDiskPause = std::chrono::seconds(60);
  log(LogLevel::kWarning,
      "its state cannot be written, so it reveals nothing: trying again in a minute");
  away_until_ = loop_.now() + kDiskPause;
  ++attempt_;
  forget_connection();
  loop_.post([this, alive = alive_] {  // behind the actions at hand
    if (*alive) tell(ConnectionLost{"the state directory cannot be written"});
  });
}

Moment Driver::moment() const { return {loop_.now(), std::chrono::system_clock::now()}; }

ParticipantOptions Driver::with_saved_work(ParticipantOptions options, Spool* spool, Moment now) {
  // A chunk that takes longer than this is too much to lose with a connection.
  constexpr Duration kPieceTime = std::chrono::seconds(1);
  options.piece_time = kPieceTime;
  if (spool == nullptr) return options;
  options.saves_work = true;
  options.saved = spool->load(now);
  return options;
}

/// On disk before the actions behind it. From there on the bytes are the file's: clean pages
/// instead of heap.
void Driver::save(const SavedWork& work) {
  if (!host_.spool) return;
  host_.spool->save(work, moment());
  participant_.use_stored([&](const SharedBytes& bytes) { return host_.spool->stored(bytes); });
}

/// A training that rests has to wake up to see that it is cancelled.
void Driver::cancel_training() {
  const auto training = std::exchange(training_, nullptr);
  if (!training) return;
  training->cancelled = true;
  training->paused = false;
  training->paused.notify_all();
}

void Driver::pause_training(bool pause) {
  if (!training_) return;
  training_->paused = pause;
  training_->paused.notify_all();
}

void Driver::start_training(TrainingTask task) {
  cancel_training();
  if (host_.spool) {
    task.model = host_.spool->stored(task.model);
    if (!task.residual.empty()) task.residual = host_.spool->stored(task.residual);
  }
  auto training = std::make_shared<Training>();
  training->task = std::move(task);
  training_ = training;
  if (training->task.report_within > Duration::zero()) {
    training->wrap_up_at =
        loop_.now() + training->task.report_within * 4 / 5;  // the rest is for the upload
  }
  training_watch_.set(loop_.now() + kTrainingWatch);
  auto alive = alive_;
  workers_.submit([this, alive, training, &trainers = trainers_, &loop = loop_] {
    TrainingControl control;
    control.cancelled = &training->cancelled;
    control.steps_done = &training->steps_done;
    control.wrap_up = &training->wrap_up;
    control.paused = &training->paused;
    const Time began = loop.now();
    auto result = std::make_shared<Result<TrainedUpdate>>(trainers.train(training->task, control));
    const Duration took = loop.now() - began;
    loop.post([this, alive, training, result, took] {
      if (!*alive || training_ != training) return;  // cancelled meanwhile
      training_.reset();
      training_watch_.cancel();
      tell(TrainingFinished{training->task.run, training->task.round, std::move(*result), took});
    });
  });
}

namespace {

Result<SharedBytes> mask(const MaskUpdate& masking) {
  try {
    return masking.job->run(masking.format, masking.update.span());
  } catch (const std::bad_alloc&) {
    return failed("masking the update takes more memory than this device gives");
  }
}

}  // namespace

void Driver::start_masking(MaskUpdate masking) {
  auto alive = alive_;
  workers_.submit([this, alive, masking = std::move(masking), &loop = loop_] {
    auto masked = std::make_shared<Result<SharedBytes>>(mask(masking));
    if (masked->ok())
      static_cast<void>((*masked)->digest());  // hashed here, remembered with the bytes
    loop.post([this, alive, round = masking.round, masked] {
      if (*alive) tell(UpdateMasked{round, std::move(*masked)});
    });
  });
}

void Driver::look_at_training() {
  if (!training_) return;
  training_watch_.set(loop_.now() + kTrainingWatch);
  if (training_->wrap_up_at && loop_.now() >= *training_->wrap_up_at) training_->wrap_up = true;
  tell(TrainingProgress{training_->steps_done.load(std::memory_order_relaxed), 0});
}

}  // namespace covey::client
