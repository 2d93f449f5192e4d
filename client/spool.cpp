#include <fmt/format.h>

#include <algorithm>
#include <covey/client/spool.hpp>
#include <covey/client/spool_record.hpp>
#include <utility>

#include "spool_files.hpp"

namespace covey::client {
namespace {

/// What a loss of power may cost of a download: so many bytes, or what came in so long.
constexpr std::uint64_t kUnsyncedBytes = 1 << 20;
constexpr Duration kUnsyncedTime = std::chrono::seconds(10);

bool same(const SharedBytes& a, const SharedBytes& b) {
  return a.data() == b.data() && a.size() == b.size();
}

}  // namespace

Spool::Spool(std::unique_ptr<StateFolder> folder, SpoolOptions options)
    : folder_(std::move(folder)), options_(std::move(options)) {}
Spool::~Spool() = default;

void Spool::note(std::string_view text) const {
  if (options_.note) options_.note(text);
}

/// A full disk is worth one word, not one with every piece.
void Spool::note_once(std::string_view text) {
  if (text == last_note_) return;
  last_note_ = text;
  note(text);
}

std::uint64_t Spool::bytes_on_disk() const {
  std::uint64_t sum = 0;
  for (const auto& file : files_) sum += file.size;
  return sum;
}

bool Spool::has(const std::string& name) const {
  return std::ranges::any_of(files_, [&](const auto& file) { return file.name == name; });
}

/// What is known of our files after one was written.
void Spool::wrote(const std::string& name, std::uint64_t size) {
  const auto found = std::ranges::find(files_, name, &StateFolder::File::name);
  if (found != files_.end()) {
    found->size = size;
  } else {
    files_.push_back({name, size});
  }
}

void Spool::remove(const std::string& name) {
  if (!has(name)) return;
  if (auto status = folder_->remove(name); !status) note_once(status.error().message);
  std::erase_if(files_, [&](const auto& file) { return file.name == name; });
}

// ---- saving

Digest Spool::digest_of(const SharedBytes& bytes) const {
  const auto known =
      std::ranges::find_if(blobs_, [&](const Blob& blob) { return same(blob.bytes, bytes); });
  return known != blobs_.end() ? known->digest : bytes.digest();
}

/// The blobs of `work`, what is worth most first: an update is hours of training.
std::vector<Spool::Wanted> Spool::wanted_of(const SavedWork& work) const {
  std::vector<Wanted> wanted;
  const auto want = [&](const SharedBytes& bytes, std::string_view what) {
    if (!bytes.empty()) wanted.push_back({&bytes, {digest_of(bytes), bytes.size()}, what});
  };
  if (work.task && work.task->trained) {
    want(work.task->trained->update, "the update");
    if (work.task->trained->residual) want(*work.task->trained->residual, "the next residual");
  }
  want(work.memory.residual, "the residual");
  if (work.model) want(work.model->bytes, "the model");
  if (work.memory.earlier) want(work.memory.earlier->bytes, "the earlier residual");
  return wanted;
}

/// Removes what nobody wants any more.
void Spool::clean(const std::vector<Wanted>& wanted) {
  std::vector<std::string> unwanted;
  for (const auto& file : files_) {
    const bool is_blob = file.name.starts_with("blob-");
    const bool is_wanted = std::ranges::any_of(
        wanted, [&](const Wanted& blob) { return blob_file(blob.name.digest) == file.name; });
    if (is_blob && !is_wanted) unwanted.push_back(file.name);
  }
  for (const auto& name : unwanted) remove(name);
}

/// A download that is complete becomes the blob.
bool Spool::take_download(const Wanted& wanted) {
  if (!download_ || download_->name != wanted.name || download_->held != wanted.name.size)
    return false;
  const std::string name = blob_file(wanted.name.digest);
  if (auto status = folder_->rename(download_file(wanted.name.digest), name); !status) {
    note_once(status.error().message);
    return false;
  }
  std::erase_if(files_,
                [&](const auto& file) { return file.name == download_file(wanted.name.digest); });
  wrote(name, wanted.name.size);
  drop_download();
  return true;
}

/// `last`: there is no more room to be made, so a failure is worth a word.
bool Spool::put(const Wanted& wanted, bool last) {
  const std::string name = blob_file(wanted.name.digest);
  if (has(name) || take_download(wanted)) return true;
  if (bytes_on_disk() + wanted.name.size > options_.max_bytes) {
    if (last) {
      note_once(fmt::format("{} of {} bytes is not kept on disk: {} of {} bytes are used",
                            wanted.what, wanted.name.size, bytes_on_disk(), options_.max_bytes));
    }
    return false;
  }
  if (auto status = folder_->put(name, wanted.bytes->span()); !status) {
    if (last) {
      note_once(fmt::format("{} stays in memory only: {}", wanted.what, status.error().message));
    }
    return false;
  }
  wrote(name, wanted.name.size);
  return true;
}

bool Spool::put_state(const SavedWork& work, const std::vector<Wanted>& wanted, Moment now) {
  const auto bytes = serialise(record_of(work, wanted, now));
  auto status = folder_->put(std::string(kState), bytes);
  if (!status && download_) {  // a full disk may have room for it in place of half a download
    drop_download();
    status = folder_->put(std::string(kState), bytes);
  }
  if (status) {
    wrote(std::string(kState), bytes.size());
  } else {
    note_once("the state of the work stays in memory only: " + status.error().message);
  }
  return status.ok();
}

bool Spool::save(const SavedWork& work, Moment now) {
  std::vector<Wanted> wanted = wanted_of(work);
  for (Wanted& blob : wanted) blob.kept = put(blob, false);
  bool landed = put_state(work, wanted, now);
  if (landed) {  // what the record before it named is void only now
    if (download_ && (!work.download || work.download->blob != download_->name.digest))
      drop_download();
    clean(wanted);
    bool more = false;
    for (Wanted& blob : wanted) {
      if (!blob.kept) more |= blob.kept = put(blob, true);
    }
    if (more) landed = put_state(work, wanted, now);
  }
  if (landed && std::ranges::all_of(wanted, &Wanted::kept)) last_note_.clear();
  landed ? unsaved_.reset() : static_cast<void>(unsaved_ = work);
  remember(wanted);
  return landed;
}

/// Which bytes lie on disk from here on, and whose they are.
void Spool::remember(const std::vector<Wanted>& wanted) {
  std::vector<Blob> blobs;
  for (const Wanted& blob : wanted) {
    if (!blob.kept) continue;
    const auto known =
        std::ranges::find_if(blobs_, [&](const Blob& b) { return same(b.bytes, *blob.bytes); });
    blobs.push_back(known != blobs_.end() ? *known : Blob{*blob.bytes, blob.name.digest});
  }
  blobs_ = std::move(blobs);
}

/// Keys, shares and noise: a process that does not know of them would give others.
bool Spool::may_send(const ClientMessage& message, Moment now) {
  if (!unsaved_) return true;
  const auto* report = std::get_if<Report>(&message);
  const bool binds = std::holds_alternative<AdvertiseKeys>(message) ||
                     std::holds_alternative<Unmask>(message) ||
                     (report && unsaved_->released == RoundOfRun(report->run, report->round));
  if (!binds) return true;
  const SavedWork work = *unsaved_;
  return save(work, now);
}

StateRecord Spool::record_of(const SavedWork& work, const std::vector<Wanted>& wanted,
                             Moment now) const {
  const auto name_of = [&](const SharedBytes& bytes) -> std::optional<BlobName> {
    for (const Wanted& blob : wanted) {
      if (blob.kept && same(*blob.bytes, bytes)) return blob.name;
    }
    return std::nullopt;
  };
  const auto on_wall = [&](Time time) -> WallTime {
    return plausible(std::chrono::time_point_cast<Duration>(now.wall) + (time - now.now));
  };
  StateRecord record;
  record.client = options_.client;
  record.written = plausible(std::chrono::time_point_cast<Duration>(now.wall));
  record.draws = work.memory.draws;
  record.violations = work.memory.violations;
  record.declines = work.memory.declines;
  record.last_accepted = work.last_accepted;
  record.revealed = work.revealed;
  record.keyed = work.keyed;
  record.released = work.released;
  if (work.not_before) record.not_before = on_wall(*work.not_before);
  record.residual.run = work.memory.residual_run;
  record.residual.now = name_of(work.memory.residual);
  if (const auto& earlier = work.memory.earlier) {
    record.residual.before = name_of(earlier->bytes).value_or(BlobName{});
    record.residual.round = earlier->round;
  }
  if (work.model) record.model = name_of(work.model->bytes);
  if (work.download) record.download = BlobName{work.download->blob, work.download->size};
  if (!work.task) return record;
  StateRecord::Task& task = record.task.emplace(StateRecord::Task{});
  task.assignment = options_.encode(work.task->assignment);
  if (work.task->report_by) task.report_by = on_wall(*work.task->report_by);
  task.train_time = work.task->train_time;
  task.starts = work.task->starts;
  task.reported = work.task->reported;
  task.decided = work.task->decided;
  if (!work.task->trained) return record;
  const TrainedUpdate& update = *work.task->trained;
  const auto name = name_of(update.update);
  if (!name) return record;
  StateRecord::Trained& trained = task.trained.emplace(StateRecord::Trained{});
  trained.update = *name;
  trained.announced = update.digest;
  trained.weight = update.weight;
  trained.scalars = update.scalars;
  trained.num_examples = update.num_examples;
  trained.steps = update.steps;
  trained.train_loss = update.train_loss;
  trained.packed = update.packed;
  trained.clipped_coordinates = update.clipped_coordinates;
  if (update.residual) trained.residual = name_of(*update.residual).value_or(BlobName{});
  return record;
}

SharedBytes Spool::stored(const SharedBytes& bytes) {
  const auto known = std::ranges::find_if(blobs_, [&](const Blob& blob) {
    const bool was = blob.before_data == bytes.data() && blob.bytes.size() == bytes.size() &&
                     bytes.owner() != nullptr && blob.before.lock() == bytes.owner();
    return was || same(blob.bytes, bytes);
  });
  if (known == blobs_.end()) return bytes;
  if (known->mapped) return known->bytes;
  auto mapped = folder_->map(blob_file(known->digest));
  if (!mapped || mapped->size() != bytes.size()) return bytes;
  known->before = bytes.owner();
  known->before_data = bytes.data();
  known->bytes = *std::move(mapped);
  known->mapped = true;
  return known->bytes;
}

// ---- downloads

void Spool::drop_download() {
  if (!download_) return;
  const Digest blob = download_->name.digest;
  download_.reset();
  remove(download_file(blob));
  remove(journal_file(blob));
}

void Spool::begin_download(const AppendDownload& piece) {
  drop_download();
  download_ = std::make_unique<Download>();
  download_->name = {piece.blob, piece.size};
  const std::string journal = journal_file(piece.blob);
  if (bytes_on_disk() + piece.size + DownloadJournal::kHeaderBytes > options_.max_bytes) {
    download_->kept = false;
    return note_once(
        fmt::format("a download of {} bytes is not kept on disk: {} of {} bytes are used",
                    piece.size, bytes_on_disk(), options_.max_bytes));
  }
  const auto header = DownloadJournal::header(download_->name);
  auto status = folder_->append(journal, 0, header);
  if (status) wrote(journal, header.size());
  if (status) status = folder_->append(download_file(piece.blob), 0, {});
  if (status) return wrote(download_file(piece.blob), 0);
  download_->kept = false;
  note_once("the download goes on in memory only: " + status.error().message);
}

void Spool::append(const AppendDownload& piece, Time now) {
  if (piece.offset == 0 || !download_ || download_->name.digest != piece.blob)
    begin_download(piece);
  if (!download_->kept || piece.offset != download_->held) return;
  if (auto status = write_piece(piece, now); !status) {
    download_->kept = false;  // what was written before stays of use
    note_once("the download goes on in memory only: " + status.error().message);
  }
}

Result<void> Spool::write_piece(const AppendDownload& piece, Time now) {
  Download& download = *download_;
  const std::string data = download_file(piece.blob), journal = journal_file(piece.blob);
  if (bytes_on_disk() + piece.bytes.size() + DownloadJournal::kEntryBytes > options_.max_bytes) {
    return failed(fmt::format("{} of {} bytes are used", bytes_on_disk(), options_.max_bytes));
  }
  COVEY_TRY(folder_->append(data, download.held, piece.bytes.span()));
  wrote(data, download.held + piece.bytes.size());
  const auto entry = DownloadJournal::entry(download.entries, download.held, piece.bytes.span());
  const std::uint64_t at = DownloadJournal::kHeaderBytes + download.entries * entry.size();
  COVEY_TRY(folder_->append(journal, at, entry));
  wrote(journal, at + entry.size());
  download.held += piece.bytes.size();
  ++download.entries;
  if (download.unsynced == 0) download.synced = now;
  download.unsynced += piece.bytes.size();
  if (download.unsynced < kUnsyncedBytes && now - download.synced < kUnsyncedTime) return {};
  download.unsynced = 0;
  COVEY_TRY(folder_->sync(data));
  return folder_->sync(journal);
}

}  // namespace covey::client
