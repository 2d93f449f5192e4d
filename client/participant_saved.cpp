#include <fmt/format.h>

#include <fmt/format.h>

#include <algorithm>
#include <covey/client/participant.hpp>
#include <utility>

// What outlives a process: what there is to save, when it changed, and how a later process takes it
// up.
namespace covey::client {
namespace {

/// Once may be anybody's fault, twice is the task's.
constexpr std::uint8_t kMostStarts = 2;

bool same(const SharedBytes& a, const SharedBytes& b) {
  return a.data() == b.data() && a.size() == b.size();
}

bool same(const std::optional<TrainedUpdate>& a, const std::optional<TrainedUpdate>& b) {
  return a.has_value() == b.has_value() && (!a || same(a->update, b->update));
}

bool same(const std::optional<SavedTask>& a, const std::optional<SavedTask>& b) {
  if (!a || !b) return a.has_value() == b.has_value();
  return a->assignment == b->assignment && same(a->trained, b->trained) &&
         a->reported == b->reported && a->decided == b->decided && a->starts == b->starts;
}

/// Draws of jitter are not worth a write: every failed attempt to connect takes one.
bool same(const ParticipantMemory& a, const ParticipantMemory& b) {
  return a.violations == b.violations && a.declines == b.declines &&
         a.residual_run == b.residual_run && same(a.residual, b.residual) && a.earlier == b.earlier;
}

template <typename T>
auto digest_of(const std::optional<T>& item, Digest T::*digest) {
  return item ? std::optional((*item).*digest) : std::nullopt;
}

}  // namespace

ParticipantMemory Participant::memory() const {
  constexpr std::uint32_t kMost = UINT8_MAX;  // far beyond what lengthens a pause
  ParticipantMemory memory = residuals_;
  memory.draws = draws_;
  memory.violations = static_cast<std::uint8_t>(std::min(violations_, kMost));
  memory.declines = static_cast<std::uint8_t>(std::min(declines_, kMost));
  return memory;
}

SavedWork Participant::saved_work() const {
  SavedWork work;
  work.memory = memory();
  work.last_accepted = last_accepted_;
  work.revealed = revealed_;
  work.keyed = keyed_;
  work.released = released_;
  if (phase_ == Phase::kPausing && link_ == Link::kDown) work.not_before = retry_at_;
  work.model = model_;
  const BlobDownload* download = partial_ ? &*partial_ : nullptr;
  // A task that ended the process too often is remembered, or it would do so again.
  if (task_ && (task_->stage != Stage::kDeclined || task_->starts >= kMostStarts)) {
    SavedTask& task = work.task.emplace();
    task.assignment = task_->assignment;
    task.report_by = task_->report_by;
    if (task_->stage == Stage::kTrained) task.trained = task_->trained;
    task.train_time = task_->train_time;
    task.starts = task_->starts;
    task.reported = task_->reported;
    task.decided = task_->decided;
    if (task_->download) download = &*task_->download;
  }
  if (download != nullptr) work.download = SavedDownload{download->blob(), download->size(), {}};
  return work;
}

/// Whether what was saved last is still what there is to save.
bool Participant::is_saved(const SavedWork& now) const {
  if (!last_saved_) return false;
  const SavedWork& then = *last_saved_;
  return same(then.memory, now.memory) && then.last_accepted == now.last_accepted &&
         then.revealed == now.revealed && then.keyed == now.keyed && then.released == now.released &&
         then.not_before == now.not_before && same(then.task, now.task) &&
         digest_of(then.model, &SavedModel::digest) == digest_of(now.model, &SavedModel::digest) &&
         digest_of(then.download, &SavedDownload::blob) ==
             digest_of(now.download, &SavedDownload::blob);
}

/// In front of what the event at hand sends: nobody is told what a loss of power could undo. Behind
/// the piece of a download that came with it.
void Participant::save(Step step, std::size_t first) {
  if (!options_.saves_work) return;
  SavedWork now = saved_work();
  if (is_saved(now)) return;
  last_saved_ = now;
  const auto is_piece = [](const Action& action) {
    return std::holds_alternative<AppendDownload>(action);
  };
  auto place = step.actions.begin() + static_cast<std::ptrdiff_t>(first);
  place = std::find_if_not(place, step.actions.end(), is_piece);
  step.actions.insert(place, Save{std::make_shared<const SavedWork>(std::move(now))});
}

void Participant::use_stored(const std::function<SharedBytes(const SharedBytes&)>& stored) {
  const auto replace = [&](SharedBytes& bytes) {
    if (!bytes.empty()) bytes = stored(bytes);
  };
  const auto replace_all = [&](ParticipantMemory& memory, std::optional<SavedModel>& model,
                               std::optional<TrainedUpdate>* trained) {
    replace(memory.residual);
    if (model) replace(model->bytes);
    if (trained == nullptr || !*trained) return;
    replace((*trained)->update);
    if ((*trained)->residual) replace(*(*trained)->residual);
  };
  if (residuals_.earlier && !residuals_.earlier->bytes.empty()) {
    EarlierResidual earlier = *residuals_.earlier;
    replace(earlier.bytes);
    residuals_.earlier = std::make_shared<const EarlierResidual>(std::move(earlier));
  }
  replace_all(residuals_, model_, task_ ? &task_->trained : nullptr);
  if (last_saved_) {
    SavedWork& last = *last_saved_;
    replace_all(last.memory, last.model, last.task ? &last.task->trained : nullptr);
    last.memory.earlier = residuals_.earlier;
  }
}

// ---- an earlier process' work

void Participant::restore(SavedWork saved) {
  draws_ = saved.memory.draws;
  violations_ = saved.memory.violations;
  declines_ = saved.memory.declines;
  residuals_ = std::move(saved.memory);
  last_accepted_ = saved.last_accepted;
  revealed_ = saved.revealed;
  keyed_ = saved.keyed;
  released_ = saved.released;
  retry_at_ = saved.not_before;
  model_ = std::move(saved.model);
  auto& download = saved.download;
  const bool fits = download && download->size <= options_.max_model_bytes &&
                    download->held.size() <= download->size;
  if (!fits) download.reset();
  if (saved.task) restore_task(*std::move(saved.task), download);
  if (download) partial_.emplace(download->blob, download->size, std::move(download->held));
}

/// The owner may ask for more than the earlier process was told to: what was begun or finished
/// then is held to it before anything of it is used or said.
void Participant::check_restored(Step step) {
  if (!task_) return;
  const auto status = suitable(task_->assignment);
  if (status) return;
  step.actions.push_back(Note{fmt::format("round {}: what an earlier process kept is dropped: {}",
                                          value_of(task_->assignment.round),
                                          status.error().message)});
  task_.reset();
}

/// Takes `download` if it is of the task.
void Participant::restore_task(SavedTask saved, std::optional<SavedDownload>& download) {
  Task& task = task_.emplace(Task{});
  task.assignment = std::move(saved.assignment);
  task.report_by = saved.report_by;
  const Assignment& assignment = task.assignment;
  if (saved.trained) {
    task.stage = Stage::kTrained;
    task.trained = std::move(saved.trained);
    task.train_time = saved.train_time;
    task.steps_done = task.trained->steps;
    // What was reported of a sum is masked with keys that are gone, and nothing else of it is ever told.
    task.reported = saved.reported && !task.trained->packed;
    task.decided = saved.decided;
    return;
  }
  task.starts = saved.starts;
  if (auto status = may_train_again(); !status) {
    task.stage = Stage::kDeclined;
    task.declined = status.error().message;
    return;
  }
  if (model_ && model_->digest == assignment.model) {
    task.stage = Stage::kTraining;
    return;
  }
  if (!download) return;
  const auto& delta = assignment.delta;
  const bool is_model =
      download->blob == assignment.model && download->size == assignment.model_size;
  const bool is_delta = delta && model_ && model_->digest == delta->base &&
                        download->blob == delta->blob && download->size == delta->size;
  if (!is_model && !is_delta) return;
  if (is_delta) task.delta = delta;
  task.download.emplace(download->blob, download->size, std::move(download->held));
  download.reset();
}

/// Whether the task at hand may be trained, after what became of it before.
Result<void> Participant::may_train_again() const {
  if (has_released(task_->assignment)) {
    return failed(
        "an update of this round left this device and is gone: another would be a second draw of "
        "its noise");
  }
  if (task_->starts < kMostStarts) return {};
  return failed(fmt::format("its training began {} times, and the process ended each time",
                            static_cast<unsigned>(task_->starts)));
}

/// A host of many devices keeps no updates, and simulates a run that is repeated as it was.
bool Participant::has_released(const Assignment& assignment) const {
  return options_.keep_finished_work &&
         released_ == RoundOfRun(assignment.run, assignment.round);
}

// ---- error feedback

/// What compression lost before the update of this round.
SharedBytes Participant::residual_of(const Assignment& assignment) const {
  if (residuals_.residual_run != assignment.run) return {};
  const auto& earlier = residuals_.earlier;
  return earlier && earlier->round == assignment.round ? earlier->bytes : residuals_.residual;
}

/// The update at hand was counted, or nearly so. (A second time, by a server that had lost it: no
/// change.)
void Participant::keep_residual() {
  if (!task_->trained || !task_->trained->residual) return;
  const Assignment& assignment = task_->assignment;
  residuals_.earlier = std::make_shared<const EarlierResidual>(
      EarlierResidual{assignment.round, residual_of(assignment)});
  residuals_.residual = *task_->trained->residual;
  residuals_.residual_run = assignment.run;
}

/// The update of a sum that was to be unmasked was not counted after all.
void Participant::restore_residual() {
  const Assignment& assignment = task_->assignment;
  const auto& earlier = residuals_.earlier;
  const bool kept = earlier && earlier->round == assignment.round &&
                    residuals_.residual_run == assignment.run;
  if (!task_->trained->packed || !kept) return;
  residuals_.residual = SharedBytes(earlier->bytes);
  residuals_.earlier.reset();
}

/// Of another run, or of a round that nobody will ask for again.
void Participant::forget_residuals_before(const Assignment& assignment) {
  if (residuals_.residual_run != assignment.run) {
    residuals_.residual = {};
    residuals_.earlier.reset();
  }
  if (residuals_.earlier && residuals_.earlier->round < assignment.round)
    residuals_.earlier.reset();
}

}  // namespace covey::client
