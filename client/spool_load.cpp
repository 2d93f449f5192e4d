#include <fmt/format.h>

#include <algorithm>
#include <covey/client/spool.hpp>
#include <covey/client/spool_record.hpp>
#include <utility>

#include "spool_files.hpp"

// What a later process is given back. Everything is held against its hash; what does not stand up
// to that is dropped.
namespace covey::client {
namespace {

bool is_ours(std::string_view name) {
  return name == kState || name.starts_with("blob-") || name.starts_with("download-") ||
         name.ends_with(".tmp");  // left by a put that was interrupted
}

/// A moment on the wall, on this process' clock.
class Clocks {
 public:
  Clocks(Moment now, WallTime written) : now_(now.now), wall_(in_us(now.wall)), written_(written) {}

  /// The wall's clock stands before what it showed when the record was written: nobody knows how
  /// long that was ago.
  bool went_back() const { return wall_ < written_; }
  Time steady(WallTime moment) const { return now_ + (moment - wall_); }
  /// How long the device was to stay away, when it was told.
  Duration pause(WallTime moment) const { return moment - written_; }

 private:
  static WallTime in_us(std::chrono::system_clock::time_point wall) {
    return std::chrono::time_point_cast<Duration>(wall);
  }
  Time now_;
  WallTime wall_, written_;
};

}  // namespace

SavedWork Spool::load(Moment now) {
  if (auto files = folder_->list(); files) {
    files_ = *std::move(files);
  } else {
    note(files.error().message);
  }
  std::erase_if(files_, [](const auto& file) { return !is_ours(file.name); });
  auto record = load_record();
  SavedWork work;
  if (record) work = restore(*record, now);
  std::vector<std::string> unused;
  for (const auto& file : files_) {
    const bool named = file.name == kState || std::ranges::any_of(blobs_, [&](const Blob& blob) {
                         return blob_file(blob.digest) == file.name;
                       });
    const bool partial = download_ && (file.name == download_file(download_->name.digest) ||
                                       file.name == journal_file(download_->name.digest));
    if (!named && !partial) unused.push_back(file.name);
  }
  for (const auto& name : unused) remove(name);
  return work;
}

std::optional<StateRecord> Spool::load_record() {
  if (!has(std::string(kState))) return std::nullopt;
  const auto bytes = folder_->map(std::string(kState));
  auto record = bytes ? parse_state(bytes->span()) : Result<StateRecord>(bytes.error());
  if (record && record->client != options_.client) {
    record = malformed(fmt::format("it is of device {}, this is device {}",
                                   value_of(record->client), value_of(options_.client)));
  }
  if (record) return *std::move(record);
  note("what an earlier process kept is dropped: state: " + record.error().message);
  remove(std::string(kState));
  return std::nullopt;
}

SavedWork Spool::restore(const StateRecord& record, Moment now) {
  const Clocks clocks(now, record.written);
  SavedWork work;
  work.memory.draws = record.draws;
  work.memory.violations = record.violations;
  work.memory.declines = record.declines;
  work.last_accepted = record.last_accepted;
  work.revealed = record.revealed;
  work.keyed = record.keyed;
  work.released = record.released;
  if (record.not_before) {
    const Duration pause = clocks.pause(*record.not_before);
    if (clocks.went_back() || pause > kLongestAbsence) {
      note("the clock was set back: when to come back is not known any more");
    } else if (pause > Duration::zero()) {
      work.not_before = clocks.steady(*record.not_before);
    }
  }
  work.memory.residual_run = record.residual.run;
  if (record.residual.now) work.memory.residual = blob(*record.residual.now, "the residual");
  if (record.residual.before && record.residual.round) {
    work.memory.earlier = std::make_shared<const EarlierResidual>(EarlierResidual{
        *record.residual.round, blob(*record.residual.before, "the earlier residual")});
  }
  if (record.model) {
    if (auto bytes = blob(*record.model, "the model"); !bytes.empty()) {
      work.model = SavedModel{record.model->digest, std::move(bytes)};
    }
  }
  if (record.download) work.download = load_download(*record.download);
  if (record.task) work.task = restore(*record.task);
  if (work.task && record.task->report_by && !clocks.went_back()) {
    work.task->report_by = clocks.steady(*record.task->report_by);
  }
  return work;
}

std::optional<SavedTask> Spool::restore(const StateRecord::Task& record) {
  auto assignment = options_.decode(record.assignment);
  if (!assignment) {
    note("the task at hand is dropped: " + assignment.error().message);
    return std::nullopt;
  }
  SavedTask task;
  task.assignment = *std::move(assignment);
  task.train_time = record.train_time;
  task.starts = record.starts;
  // A decided task is kept for its update alone.
  if (!record.trained) return record.decided ? std::nullopt : std::optional(std::move(task));
  const StateRecord::Trained& trained = *record.trained;
  SharedBytes update = blob(trained.update, "the update");
  const bool fits = !trained.packed || trained.packed->bytes() == update.size();
  const bool announced = trained.packed || trained.announced == trained.update.digest;
  if (update.empty() || !fits || !announced) {
    return record.decided ? std::nullopt : std::optional(std::move(task));
  }
  task.reported = record.reported;
  task.decided = record.decided;
  TrainedUpdate& kept = task.trained.emplace();
  kept.update = std::move(update);
  kept.digest = trained.announced;
  kept.weight = trained.weight;
  kept.scalars = trained.scalars;
  kept.num_examples = trained.num_examples;
  kept.steps = trained.steps;
  kept.train_loss = trained.train_loss;
  kept.packed = trained.packed;
  kept.clipped_coordinates = trained.clipped_coordinates;
  if (trained.residual) kept.residual = blob(*trained.residual, "the next residual");
  return task;
}

/// Empty if it is not there, or not what it is called.
SharedBytes Spool::blob(const BlobName& name, std::string_view what) {
  if (name.size == 0) return {};
  if (const auto known = std::ranges::find(blobs_, name.digest, &Blob::digest);
      known != blobs_.end()) {
    return known->bytes;
  }
  auto bytes = folder_->map(blob_file(name.digest));
  if (!bytes) {
    note(fmt::format("{} is lost: {}", what, bytes.error().message));
    return {};
  }
  if (bytes->size() != name.size || sha256(bytes->span()) != name.digest) {
    note(fmt::format("{} is dropped: its bytes on disk are not what was written", what));
    return {};
  }
  blobs_.push_back({*bytes, name.digest, true});
  return *std::move(bytes);
}

std::optional<SavedDownload> Spool::load_download(const BlobName& name) {
  if (has(blob_file(name.digest))) {  // it was complete, and its new place is not recorded yet
    if (SharedBytes whole = blob(name, "the download"); !whole.empty()) {
      return SavedDownload{name.digest, name.size, std::move(whole)};
    }
  }
  const std::string data = download_file(name.digest), journal = journal_file(name.digest);
  if (!has(data) || !has(journal)) return std::nullopt;
  const auto bytes = folder_->map(data), entries = folder_->map(journal);
  if (!bytes || !entries) {
    note("the half of a download is lost: " + (bytes ? entries : bytes).error().message);
    return std::nullopt;
  }
  const auto intact = DownloadJournal::check(name, entries->span(), bytes->span());
  if (intact.bytes < bytes->size()) {
    note(fmt::format("{} of {} bytes of a download are intact", intact.bytes, bytes->size()));
  }
  const std::uint64_t journal_bytes =
      DownloadJournal::kHeaderBytes + intact.entries * DownloadJournal::kEntryBytes;
  const bool cut = intact.bytes > 0 && folder_->truncate(data, intact.bytes).ok() &&
                   folder_->truncate(journal, journal_bytes).ok();
  if (!cut) return std::nullopt;
  wrote(data, intact.bytes);
  wrote(journal, journal_bytes);
  download_ = std::make_unique<Download>();
  download_->name = name;
  download_->held = intact.bytes;
  download_->entries = intact.entries;
  return SavedDownload{name.digest, name.size, bytes->slice(0, static_cast<std::size_t>(intact.bytes))};
}

}  // namespace covey::client
