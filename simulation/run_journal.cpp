#include "run_journal.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <unordered_set>

namespace covey::simulation {
namespace {

// A snapshot waits for the disk: at most one part in so many of a run's time.
constexpr int kSnapshotShare = 50;
// So that no device's update is taken for a blank one: one that is all zeros exists.
constexpr std::string_view kBlank = "covey blank update";

std::string journal_path(const std::string& folder) { return folder + "/journal.bin"; }
std::string snapshot_path(const std::string& folder) { return folder + "/snapshot.bin"; }

TrainedRecord record_of(std::uint64_t training, ClientId client, RoundNumber round,
                        const Result<client::TrainedUpdate>& result) {
  TrainedRecord record;
  record.training = training;
  record.client = client;
  record.round = round;
  if (!result.ok()) {
    record.failure = result.error().message;
    return record;
  }
  record.update_bytes = result->update.size();
  record.weight = result->weight;
  record.scalars = result->scalars;
  record.num_examples = result->num_examples;
  record.steps = result->steps;
  record.train_loss = result->train_loss;
  record.clipped_coordinates = result->clipped_coordinates;
  record.packed = result->packed;
  record.has_residual = result->residual.has_value();
  return record;
}

/// Bit for bit, also where a loss is not a number.
bool same(const Record& a, const Record& b) {
  ByteWriter first, second;
  encode(a, first);
  encode(b, second);
  return std::ranges::equal(first.bytes(), second.bytes());
}

/// So many zeros, beginning with as much of `name` as there is room for: different models have to
/// differ, since devices know them by their digest.
SharedBytes named_zeros(std::uint64_t size, const Digest& name) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  std::memcpy(bytes.data(), name.bytes.data(), std::min(bytes.size(), name.bytes.size()));
  return SharedBytes(std::move(bytes));
}

template <typename Work>
void for_each_sent(const server::EncodedModel& model, Work work) {
  work(model.sent);
  for (const SharedBytes& variant : model.variants) work(variant);
}

}  // namespace

Result<std::unique_ptr<RunJournal>> RunJournal::open(Options options) {
  std::unique_ptr<RunJournal> journal(new RunJournal());
  journal->options_ = std::move(options);
  if (journal->options_.resume) COVEY_TRY(journal->resume());
  if (journal->reader_) return journal;
  COVEY_ASSIGN(journal->writer_, JournalWriter::create(journal_path(journal->options_.folder),
                                                       journal->options_.run));
  return journal;
}

Result<void> RunJournal::resume() {
  COVEY_ASSIGN(auto snapshot, read_snapshot(snapshot_path(options_.folder)));
  if (!snapshot) return {};  // stopped before its first round was committed
  if (snapshot->run != options_.run) {
    return invalid_argument(
        options_.folder +
        "/snapshot.bin is of another run, or run.toml was changed since; undo the "
        "change, or run it again in another folder");
  }
  if (snapshot->parameters.back().round != snapshot->round) {
    return malformed(options_.folder +
                     "/snapshot.bin does not hold its round's model; run it again");
  }
  snapshot_ = std::move(*snapshot);
  COVEY_ASSIGN(reader_,
               JournalReader::open(journal_path(options_.folder), options_.run, snapshot_.journal));
  return {};
}

void RunJournal::remove(const std::string& folder) {
  std::error_code ignored;  // what stays is only a waste of space
  std::filesystem::remove(snapshot_path(folder), ignored);
  std::filesystem::remove(journal_path(folder), ignored);
}

void RunJournal::disagree(const std::string& journal, const std::string& run) {
  if (error_) return;
  error_ = failed(fmt::format(
      "{} does not fit this run: where it tells of {}, the run asks for {}. It was written by "
      "another "
      "version of the program, on another kind of processor, or with other data; run it again",
      journal_path(options_.folder), journal, run));
}

/// The next record, if it is what the run asks for now.
template <typename Kind>
std::optional<Kind> RunJournal::expect(const Record& asked) {
  if (error_) return std::nullopt;
  auto record = reader_->next();
  if (!record.ok()) {
    error_ = record.error();
    return std::nullopt;
  }
  const std::string wanted = describe(asked);
  const std::string found = *record ? describe(**record) : "nothing more";
  if (found == wanted) return std::get<Kind>(std::move(**record));
  disagree(found, wanted);
  return std::nullopt;
}

bool RunJournal::stopped() const {
  return options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed);
}

void RunJournal::write(const Record& record) { writer_->add(record); }

// ---- devices

void RunJournal::begins(std::uint64_t training, const client::TrainingTask& task) {
  under_way_.insert_or_assign(task.client,
                              UnderWay{training, task.round, task.model, task.residual, false});
}

bool RunJournal::computes(std::uint64_t training) const {
  return !replaying() || std::ranges::binary_search(snapshot_.trainings, training);
}

Result<client::TrainedUpdate> RunJournal::take(
    ClientId client, const std::function<Result<client::TrainedUpdate>()>& compute) {
  const auto found = under_way_.find(client);
  COVEY_ASSERT(found != under_way_.end());
  const std::uint64_t training = found->second.training;
  const RoundNumber round = found->second.round;
  found->second.taken = true;
  if (!replaying()) {
    if (round <= resumed_ && stand_ins_.contains(found->second.model.digest())) {
      error_ = failed(
          fmt::format("device {} still trains on the model after round {}, which "
                      "{} does not hold; run it again",
                      value_of(client), value_of(round) - 1, snapshot_path(options_.folder)));
      return *error_;
    }
    COVEY_TRY(check_residual(found->second, client));
    auto result = compute();
    write(record_of(training, client, round, result));
    if (!result.ok()) ends(client);
    if (result.ok()) watch_residual(training, *result);
    return result;
  }
  TrainedRecord asked;
  asked.training = training;
  asked.client = client;
  asked.round = round;
  const auto record = expect<TrainedRecord>(asked);
  if (!record) return failed("the journal does not fit");
  if (computes(training)) {
    COVEY_TRY(check_residual(found->second, client));
    auto result = compute();
    if (!stopped() && !same(record_of(training, client, round, result), *record)) {
      disagree("one outcome of " + describe(*record), "another");
    }
    if (result.ok()) watch_residual(training, *result);
    return result;
  }
  if (record->failure) {
    ends(client);
    return failed(*record->failure);
  }
  return stand_in(*record);
}

/// Error if what it began with is only a stand-in.
Result<void> RunJournal::check_residual(const UnderWay& work, ClientId client) {
  if (blank_residual_.empty() || work.residual.data() != blank_residual_.data()) return {};
  error_ = failed(fmt::format("what error feedback left to device {} is not in {}; run it again",
                              value_of(client), snapshot_path(options_.folder)));
  return *error_;
}

client::TrainedUpdate RunJournal::stand_in(const TrainedRecord& record) {
  SharedBytes& bytes = blank_[static_cast<std::size_t>(record.update_bytes)];
  if (bytes.empty())
    bytes = named_zeros(record.update_bytes, sha256(std::as_bytes(std::span(kBlank))));
  client::TrainedUpdate update;
  update.update = bytes;
  if (!record.packed) update.digest = bytes.digest();
  update.weight = record.weight;
  update.scalars = record.scalars;
  update.num_examples = record.num_examples;
  update.steps = record.steps;
  update.train_loss = record.train_loss;
  update.packed = record.packed;
  update.clipped_coordinates = record.clipped_coordinates;
  if (!record.has_residual) return update;
  const auto held =
      std::ranges::find(snapshot_.residuals, record.training, &Snapshot::Residual::training);
  if (held != snapshot_.residuals.end()) {
    update.residual = held->bytes;
    watch_residual(record.training, update);
  } else {
    if (blank_residual_.empty()) blank_residual_ = named_zeros(1, Digest{});
    update.residual = blank_residual_;
  }
  return update;
}

/// Somebody may hold it until the next snapshot, and beyond.
void RunJournal::watch_residual(std::uint64_t training, const client::TrainedUpdate& update) {
  if (update.residual) residuals_.insert_or_assign(training, Watched(*update.residual));
}

// ---- the server

std::optional<RunJournal::Rejection> RunJournal::judge(
    const server::JudgeUpdate& action, const std::function<std::optional<Rejection>()>& compute) {
  JudgedRecord record{action.key.client, action.key.round, std::nullopt};
  ends(record.client);
  if (replaying()) {
    const auto found = expect<JudgedRecord>(record);
    return found ? found->rejection : std::nullopt;
  }
  // What was sent before the snapshot may be blank only where it is rejected for its age.
  const bool too_old = options_.max_staleness && action.staleness > *options_.max_staleness;
  for (const auto& [size, bytes] : blank_) {
    if (too_old || bytes.digest() != action.key.blob) continue;
    error_ = failed(fmt::format("the update of device {} in round {} is not in {}; run it again",
                                value_of(record.client), value_of(record.round),
                                snapshot_path(options_.folder)));
  }
  record.rejection = compute();
  write(record);
  return record.rejection;
}

server::StrategyApplied RunJournal::apply(
    RoundNumber round, const std::function<server::StrategyApplied()>& compute,
    const std::function<Result<void>(const Snapshot&)>& restore) {
  if (!replaying()) {
    server::StrategyApplied applied = compute();
    AppliedRecord record{round,           std::nullopt,   0, {}, applied.privacy,
                         applied.figures, applied.culprit};
    if (applied.model.ok()) {
      record.parameter_bytes = applied.model->parameters.size();
      for_each_sent(*applied.model, [&record](const SharedBytes& sent) {
        record.sent.push_back({sent.size(), sent.digest()});
      });
      remember(round, *applied.model);
    } else {
      record.failure = applied.model.error().message;
    }
    write(record);
    return applied;
  }
  AppliedRecord asked;
  asked.round = round;
  const auto record = expect<AppliedRecord>(asked);
  if (!record) return {round, failed("the journal does not fit")};
  server::StrategyApplied applied{round, failed(record->failure.value_or("")), record->privacy,
                                  record->figures, record->culprit};
  if (!record->failure) applied.model = stand_in(*record);
  if (reader_->at_end()) finish_replay(round, restore);
  return applied;
}

/// The model itself where the snapshot has it.
server::EncodedModel RunJournal::stand_in(const AppliedRecord& record) {
  server::EncodedModel model;
  for (const auto& [round, bytes] : snapshot_.parameters) {
    if (round == record.round) model.parameters = bytes;
  }
  const bool is_real = !model.parameters.empty();
  if (!is_real) {
    const Digest name = record.sent.empty() ? Digest{} : record.sent.front().digest;
    model.parameters = named_zeros(record.parameter_bytes, name);
  }
  std::vector<SharedBytes> sent;
  for (const auto& [bytes, digest] : record.sent) {
    // Also of another round: one that did not move the model left devices nothing new to download.
    const auto known = std::ranges::find(snapshot_.models, digest, &SharedBytes::digest);
    if (known != snapshot_.models.end()) {
      sent.push_back(*known);
    } else {
      sent.push_back(named_zeros(bytes, digest));
      stand_ins_.insert(sent.back().digest());
    }
  }
  if (!sent.empty()) model.sent = sent.front();
  if (sent.size() > 1) model.variants.assign(sent.begin() + 1, sent.end());
  if (is_real) remember(record.round, model);
  return model;
}

void RunJournal::finish_replay(RoundNumber round,
                               const std::function<Result<void>(const Snapshot&)>& restore) {
  if (round != snapshot_.round) {
    return disagree(fmt::format("the last sum, of round {},", value_of(round)),
                    fmt::format("the snapshot's round {}", value_of(snapshot_.round)));
  }
  auto restored = restore(snapshot_);
  if (restored.ok()) {
    auto writer = JournalWriter::reopen(journal_path(options_.folder), snapshot_.journal);
    if (writer.ok()) {
      writer_ = std::move(*writer);
    } else {
      restored = writer.error();
    }
  }
  if (!restored.ok()) error_ = restored.error();
  reader_.reset();
  resumed_ = round;
  snapshot_ = {};
  last_snapshot_ = std::chrono::steady_clock::now();
}

server::ModelEvaluated RunJournal::evaluate(
    RoundNumber round, const std::function<server::ModelEvaluated()>& compute) {
  if (replaying()) {
    const auto record = expect<EvaluatedRecord>(EvaluatedRecord{round});
    return {round, record ? record->accuracy : 0, record ? record->loss : 0};
  }
  const server::ModelEvaluated figures = compute();
  write(EvaluatedRecord{round, figures.accuracy, figures.loss});
  return figures;
}

void RunJournal::publish(RoundMetrics& metrics, const std::function<void(RoundMetrics&)>& compute) {
  if (replaying()) {
    const auto record = expect<PublishedRecord>(PublishedRecord{metrics.round, 0, std::nullopt});
    if (!record) return;
    metrics.wall_s = record->wall_s;
    metrics.devices = record->devices;
    return;
  }
  compute(metrics);
  write(PublishedRecord{metrics.round, metrics.wall_s.value_or(0), metrics.devices});
}

// ---- snapshots

void RunJournal::remember(RoundNumber round, const server::EncodedModel& model) {
  if (options_.copies_messages) previous_ = std::exchange(last_, model);
  std::erase_if(versions_, [](const Version& version) {
    return version.parameters.owner.expired() &&
           std::ranges::all_of(version.sent, [](const Watched& w) { return w.owner.expired(); });
  });
  versions_.push_back({round, Watched(model.parameters), {}});
  for_each_sent(model,
                [this](const SharedBytes& sent) { versions_.back().sent.emplace_back(sent); });
}

bool RunJournal::may_still_count(const UnderWay& work, RoundNumber committed) const {
  if (!work.taken) return true;
  if (work.round > committed) return true;
  return options_.max_staleness &&
         value_of(committed) - value_of(work.round) < *options_.max_staleness;
}

/// The models and trainings that a run which goes on from here needs; models by round and variant,
/// then by digest, so that the same run writes the same.
void RunJournal::gather(Snapshot& snapshot) const {
  std::unordered_set<const std::byte*> places;
  for (const Version& version : versions_) {
    if (auto owner = version.parameters.owner.lock()) {
      snapshot.parameters.push_back({version.round, {std::move(owner), version.parameters.view}});
    }
    for (const Watched& sent : version.sent) {
      auto owner = sent.owner.lock();
      if (!owner || !places.insert(sent.view.data()).second) continue;
      snapshot.models.emplace_back(std::move(owner), sent.view);
    }
  }
  std::map<Digest, SharedBytes> copies;  // that devices put together of pieces
  for (const auto& [client, work] : under_way_) {
    snapshot.trainings.push_back(work.training);
    // The model of round 0 follows from the run file.
    if (value_of(work.round) <= 1 || places.contains(work.model.data())) continue;
    copies.try_emplace(work.model.digest(), work.model);
  }
  for (const auto& [training, watched] : residuals_) {
    auto owner = watched.owner.lock();
    if (owner) snapshot.residuals.push_back({training, {std::move(owner), watched.view}});
  }
  std::ranges::sort(snapshot.trainings);
  for (const auto& [digest, model] : copies) snapshot.models.push_back(model);
}

void RunJournal::committed(RoundNumber round, const std::function<void(Snapshot&)>& rest) {
  // What counts no more must not keep its model alive.
  std::erase_if(under_way_, [&](const auto& work) { return !may_still_count(work.second, round); });
  std::erase_if(residuals_, [](const auto& entry) { return entry.second.owner.expired(); });
  if (replaying() || error_) return;
  const auto now = std::chrono::steady_clock::now();
  const bool first = last_snapshot_ == std::chrono::steady_clock::time_point{};
  const auto pause = std::max<std::chrono::steady_clock::duration>(options_.snapshot_pause,
                                                                   kSnapshotShare * snapshot_cost_);
  if (!first && options_.snapshot_pause.count() > 0 && now - last_snapshot_ < pause) return;
  const auto position = writer_->flush();
  if (!position.ok()) {
    error_ = position.error();
    return;
  }
  Snapshot snapshot;
  snapshot.run = options_.run;
  snapshot.round = round;
  snapshot.journal = *position;
  rest(snapshot);
  gather(snapshot);
  if (auto written = write_snapshot(snapshot_path(options_.folder), snapshot); !written.ok()) {
    error_ = written.error();
  }
  last_snapshot_ = std::chrono::steady_clock::now();
  snapshot_cost_ = last_snapshot_ - now;
}

}  // namespace covey::simulation
