#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <covey/client/example_stream.hpp>
#include <covey/digest.hpp>
#include <covey/models/example_files.hpp>
#include <cstring>
#include <limits>
#include <utility>

#include "local_data/file_data.hpp"
#include "local_data/stream_store.hpp"

namespace covey::client {

std::uint64_t ExampleStream::Store::count_between(const ExamplePool& pool, std::uint64_t from,
                                                  std::uint64_t to) const {
  std::uint64_t count = 0;
  for (std::uint64_t i = 0; i < pool.size(); ++i) {
    count += pool.sequence(i) >= from && pool.sequence(i) < to ? 1 : 0;
  }
  return count;
}

/// Of the examples from, ..., to - 1, in the order in which they came.
ExampleStream::Store::Slots ExampleStream::Store::in_order(const ExamplePool& pool,
                                                           std::uint64_t from,
                                                           std::uint64_t to) const {
  Slots slots;
  for (std::uint64_t i = 0; i < pool.size(); ++i) {
    if (pool.sequence(i) >= from && pool.sequence(i) < to) slots.push_back(i);
  }
  std::ranges::sort(slots, {}, [&](std::uint64_t slot) { return pool.sequence(slot); });
  return slots;
}

std::uint64_t ExampleStream::Store::replayed(std::uint64_t fresh, std::uint64_t older) const {
  const double wanted = std::ceil(options_.replay * static_cast<double>(fresh));
  return wanted >= static_cast<double>(older) ? older : static_cast<std::uint64_t>(wanted);
}

std::uint64_t ExampleStream::Store::num_examples() const {
  const std::lock_guard lock(mutex_);
  constexpr std::uint64_t kEnd = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t fresh = all().size();
  if (options_.only_new) fresh = count_between(window_, state_.used, kEnd);
  if (fresh < options_.min_examples) return 0;
  if (!options_.only_new || options_.replay == 0) return fresh;
  return fresh + replayed(fresh, count_between(all(), 0, state_.used));
}

Result<std::shared_ptr<const models::DataSet>> ExampleStream::Store::copy(
    const Slots& fresh, const Slots& older) const {
  const ExamplePool& pool = options_.only_new ? window_ : all();
  const std::size_t size = layout_->example_size();
  const std::size_t bytes = layout_->example_bytes();
  const std::size_t n = fresh.size() + older.size();
  std::vector<float> floats;
  std::vector<std::uint8_t> small;
  const bool as_bytes = layout_->element == StreamOptions::Element::kByte;
  as_bytes ? small.resize(n * size) : floats.resize(n * size);
  std::byte* out = as_bytes ? reinterpret_cast<std::byte*>(small.data())
                            : reinterpret_cast<std::byte*>(floats.data());
  std::vector<std::int32_t> labels;
  labels.reserve(n);
  const auto take = [&](const ExamplePool& from, const Slots& slots) {
    for (const std::uint64_t slot : slots) {
      std::memcpy(out, from.features(slot).data(), bytes);
      out += bytes;
      labels.push_back(from.label(slot));
    }
  };
  take(pool, fresh);
  take(all(), older);
  const auto classes =
      options_.classes > 0 ? options_.classes : static_cast<std::uint32_t>(largest_label_) + 1;
  auto data = as_bytes ? models::DataSet::from_bytes(layout_->shape, std::move(small), 1.0f / 255,
                                                     std::move(labels), classes)
                       : models::DataSet::from_floats(layout_->shape, std::move(floats),
                                                      std::move(labels), classes);
  if (!data.ok()) return with_context("the stream of local examples", data.error());
  return std::shared_ptr<const models::DataSet>(
      std::make_shared<models::DataSet>(std::move(data).value()));
}

Result<std::shared_ptr<const models::DataSet>> ExampleStream::Store::snapshot() {
  const std::lock_guard lock(mutex_);
  std::erase_if(snapshots_, [](const Snapshot& snapshot) { return snapshot.examples.expired(); });
  for (const Snapshot& snapshot : snapshots_) {
    auto held = snapshot.examples.lock();
    if (held && snapshot.seen == state_.seen && snapshot.used == state_.used) return held;
  }
  constexpr std::uint64_t kEnd = std::numeric_limits<std::uint64_t>::max();
  const Slots fresh =
      options_.only_new ? in_order(window_, state_.used, kEnd) : in_order(all(), 0, kEnd);
  if (fresh.empty() || fresh.size() < options_.min_examples) {
    return failed(fmt::format("there are {} {}examples to train on, {} are wanted", fresh.size(),
                              options_.only_new ? "new " : "", options_.min_examples));
  }
  Slots older;
  if (options_.only_new && options_.replay > 0) {
    older = in_order(all(), 0, state_.used);
    const auto wanted = static_cast<std::size_t>(replayed(fresh.size(), older.size()));
    draws(Draw::kReplay).shuffle(std::span(older));
    older.resize(wanted);
  }
  COVEY_ASSIGN(auto examples, copy(fresh, older));
  snapshots_.push_back({examples, examples.get(), state_.seen, state_.used});
  return examples;
}

void ExampleStream::Store::update_made(const models::DataSet* examples, RunId run,
                                       RoundNumber round) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(snapshots_, examples, &Snapshot::address);
  if (found == snapshots_.end()) return;
  update_ = {run, round, found->seen};
  if (!log_ || !layout_) return;
  auto written = log_->append(update_);
  if (written.ok()) written = log_->sync();  // as the update is, where it is kept
  // At worst the same examples are trained on once more after a restart.
  if (!written.ok()) notice(written.error().message);
}

void ExampleStream::Store::update_counted(RunId run, RoundNumber round) {
  const std::lock_guard lock(mutex_);
  if (update_.run != run || update_.round != round) return;
  const std::uint64_t used = std::min(update_.seen, state_.seen);
  if (used <= state_.used) return;
  state_.used = used;
  if (!log_ || !layout_) return;
  // At worst the same examples are trained on once more after a restart.
  if (const auto written = log_->append(state_); !written.ok()) notice(written.error().message);
}

ExampleStream::ExampleStream(std::unique_ptr<Store> store) : store_(std::move(store)) {}
ExampleStream::~ExampleStream() = default;

Result<std::unique_ptr<ExampleStream>> ExampleStream::open(StreamOptions options) {
  auto store = std::make_unique<Store>(std::move(options));
  COVEY_TRY(store->open());
  return std::unique_ptr<ExampleStream>(new ExampleStream(std::move(store)));
}

Result<void> ExampleStream::add(std::span<const float> features, std::int32_t label) {
  return store_->add(features, label);
}
Result<void> ExampleStream::add_bytes(std::span<const std::uint8_t> features, std::int32_t label) {
  return store_->add_bytes(features, label);
}
Result<void> ExampleStream::clear() { return store_->clear(); }
Result<void> ExampleStream::sync() { return store_->sync(); }
std::uint64_t ExampleStream::seen() const { return store_->seen(); }
std::uint64_t ExampleStream::kept() const { return store_->kept(); }
std::uint64_t ExampleStream::num_examples() { return store_->num_examples(); }
Result<std::shared_ptr<const models::DataSet>> ExampleStream::examples() {
  return store_->snapshot();
}
void ExampleStream::update_made(const std::shared_ptr<const models::DataSet>& examples, RunId run,
                                RoundNumber round) {
  store_->update_made(examples.get(), run, round);
}
void ExampleStream::update_counted(RunId run, RoundNumber round) {
  store_->update_counted(run, round);
}

namespace {

/// A number that another file, or the same one written anew, does not have.
Result<std::uint64_t> name_of_table(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return not_found(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  }
  const std::string text = fmt::format("{} {} {} {}.{}", path, status.st_size, status.st_ino,
                                       status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
  const Digest digest = sha256(std::as_bytes(std::span(text)));
  std::uint64_t name = 0;
  std::memcpy(&name, digest.bytes.data(), sizeof(name));
  return name | 1;  // 0: none
}

}  // namespace

Result<void> ExampleStream::take_csv(const std::string& path, const std::string& label,
                                     const std::vector<std::string>& classes) {
  const std::lock_guard lock(store_->taking);
  COVEY_ASSIGN(const std::uint64_t table, name_of_table(path));
  COVEY_ASSIGN(const std::uint64_t taken, store_->begin_table(table));
  models::CsvExamples rows({.label = label, .classes = classes});
  rows.begin(path);
  std::uint64_t row = 0;
  const auto take = [&](std::string_view text, double) -> Result<void> {
    COVEY_TRY(rows.add(text));
    const std::vector<std::int32_t> labels = rows.labels();
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (++row <= taken) continue;
      const auto features =
          std::span(rows.features()).subspan(i * rows.num_features(), rows.num_features());
      const auto added = store_->add(features, labels[i], row);
      if (!added.ok()) return with_context(fmt::format("{}: row {}", path, row), added.error());
    }
    rows.forget_rows();
    return {};
  };
  COVEY_TRY(read_table(path, take, TableEnd::kComplete));
  COVEY_TRY(store_->sync());
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return failed(fmt::format("{}: cannot be removed: {}", path, std::strerror(errno)));
  }
  return store_->end_table();
}

}  // namespace covey::client
