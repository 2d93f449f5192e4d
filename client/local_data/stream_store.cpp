#include "local_data/stream_store.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/random.hpp>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

namespace covey::client {
namespace {

using Element = StreamOptions::Element;
using Keep = StreamOptions::Keep;

// A file may hold this much that is no longer kept before it is written anew.
constexpr std::uint64_t kMinWasteBytes = 64 << 10;
// What an example takes in memory beside its features: label and sequence number.
constexpr std::uint64_t kBesideFeatures = sizeof(std::int32_t) + sizeof(std::uint64_t);
constexpr std::uint64_t kMaxLabel = 65535;  // as models' tables

std::string shape_text(const std::vector<std::uint32_t>& shape) {
  return fmt::format("{}", fmt::join(shape, "x"));
}

}  // namespace

/// Named by what they are for and how many examples had come, so that a restart changes nothing.
RandomStream ExampleStream::Store::draws(Draw purpose) const {
  return RandomStream(options_.seed, RandomPurpose::kDataGeneration,
                      RoundNumber{static_cast<std::uint32_t>(purpose)}, ClientId{state_.seen});
}

Result<StreamLayout> ExampleStream::Store::layout_for(std::vector<std::uint32_t> shape) const {
  StreamLayout layout;
  layout.element = options_.element;
  layout.shape = std::move(shape);
  const std::uint64_t room = options_.max_bytes / (layout.example_bytes() + kBesideFeatures);
  const std::uint64_t places = std::min(options_.max_examples, room);
  const bool both = options_.keep == Keep::kReservoir && options_.only_new && options_.replay > 0;
  if (places < (both ? 2u : 1u)) {
    return invalid_argument(fmt::format(
        "the stream may keep {} bytes and {} examples, too few for examples of {} bytes",
        options_.max_bytes, options_.max_examples, layout.example_bytes()));
  }
  const bool only_reservoir = options_.keep == Keep::kReservoir && !options_.only_new;
  layout.reservoir = both ? places / 2 : only_reservoir ? places : 0;
  layout.window = places - layout.reservoir;
  return layout;
}

Result<void> ExampleStream::Store::check_file(const StreamLayout& layout) const {
  if (layout.element != options_.element) {
    return invalid_argument(
        fmt::format("{}: the examples in it are kept as {}s, which the option element contradicts",
                    options_.directory, layout.element == Element::kByte ? "byte" : "float"));
  }
  if (options_.shape.empty() || layout.shape == options_.shape) return {};
  return invalid_argument(fmt::format("{}: the examples in it have shape {}, the options say {}",
                                      options_.directory, shape_text(layout.shape),
                                      shape_text(options_.shape)));
}

Result<void> ExampleStream::Store::open() {
  std::uint64_t size = 1;
  for (const std::uint32_t extent : options_.shape) {
    size *= extent;
    if (size == 0 || size > (std::uint64_t{1} << 28) || options_.shape.size() > 4) {
      return invalid_argument(
          fmt::format("a stream of examples of shape {}: up to four extents and 2^28 features work",
                      shape_text(options_.shape)));
    }
  }
  if (options_.replay > 0 && !options_.only_new) {
    return invalid_argument(
        "replay mixes old examples with new ones and needs only-new=yes; else all are trained on");
  }
  if (!options_.shape.empty()) COVEY_TRY(layout_for(options_.shape));
  if (!options_.directory.empty()) return load();
  return {};
}

Result<void> ExampleStream::Store::load() {
  StreamLog::Reader reader;
  reader.layout = [this](const StreamLayout& layout) -> Result<void> {
    COVEY_TRY(check_file(layout));
    layout_ = layout;
    window_ = ExamplePool(layout.window, layout.example_bytes());
    reservoir_ = ExamplePool(layout.reservoir, layout.example_bytes());
    return {};
  };
  reader.example = [this](const StreamExample& example) { return place(example); };
  reader.state = [this](const StreamState& state) { state_ = state; };
  reader.update = [this](const StreamUpdate& update) { update_ = update; };
  reader.notice = [this](std::string_view text) { notice(text); };
  COVEY_ASSIGN(log_, StreamLog::open(options_.directory, reader));
  if (!layout_) return {};
  state_.used = std::min(state_.used, state_.seen);
  const auto classes = static_cast<std::int64_t>(options_.classes);
  if (classes > 0 && largest_label_ >= classes && all().size() + window_.size() > 0) {
    return invalid_argument(
        fmt::format("{}: there are examples of class {} in it, and the options say {} classes",
                    options_.directory, largest_label_, classes));
  }
  next_in_window_ = window_.size() < window_.capacity() ? window_.size() : window_.oldest();
  COVEY_ASSIGN(const StreamLayout layout, layout_for(layout_->shape));
  if (layout != *layout_) return place_anew(layout);
  compact_at_ = 2 * log_->bytes() + kMinWasteBytes;
  compact_if_due();
  return {};
}

bool ExampleStream::Store::place(const StreamExample& e) {
  if (e.window_slot != kNoSlot && !window_.put(e.window_slot, e.sequence, e.label, e.features)) {
    return false;
  }
  if (e.reservoir_slot != kNoSlot &&
      !reservoir_.put(e.reservoir_slot, e.sequence, e.label, e.features)) {
    return false;
  }
  state_.seen = std::max(state_.seen, e.sequence + 1);
  if (e.table_row > 0) state_.table_rows = e.table_row;
  largest_label_ = std::max(largest_label_, e.label);
  return true;
}

/// Other limits or another way of keeping than those the file was written with.
Result<void> ExampleStream::Store::place_anew(const StreamLayout& layout) {
  const ExamplePool old_window = std::move(window_);
  const ExamplePool old_reservoir = std::move(reservoir_);
  window_ = ExamplePool(layout.window, layout.example_bytes());
  reservoir_ = ExamplePool(layout.reservoir, layout.example_bytes());
  const auto copy = [](const ExamplePool& from, std::uint64_t slot, ExamplePool& to) {
    const bool put = to.put(to.size(), from.sequence(slot), from.label(slot), from.features(slot));
    COVEY_ASSERT(put);
  };
  const std::uint64_t end = std::numeric_limits<std::uint64_t>::max();
  const ExamplePool& recent = old_window.size() > 0 ? old_window : old_reservoir;
  const Slots by_age = in_order(recent, 0, end);
  const auto last = static_cast<std::size_t>(std::min<std::uint64_t>(by_age.size(), layout.window));
  for (std::size_t i = by_age.size() - last; i < by_age.size(); ++i)
    copy(recent, by_age[i], window_);
  next_in_window_ = window_.size() < window_.capacity() ? window_.size() : 0;

  // A uniform choice of a uniform sample is one.
  const ExamplePool& sample = old_reservoir.size() > 0 ? old_reservoir : old_window;
  Slots chosen(static_cast<std::size_t>(sample.size()));
  std::iota(chosen.begin(), chosen.end(), std::uint64_t{0});
  draws(Draw::kSmallerReservoir).shuffle(std::span(chosen));
  chosen.resize(static_cast<std::size_t>(std::min<std::uint64_t>(chosen.size(), layout.reservoir)));
  for (const std::uint64_t slot : chosen) copy(sample, slot, reservoir_);
  layout_ = layout;
  return rewrite_log();
}

Result<void> ExampleStream::Store::rewrite_log() {
  const auto write = [this]() -> Result<void> {
    for (std::uint64_t i = 0; i < window_.size(); ++i) {
      COVEY_TRY(log_->append(
          {window_.sequence(i), i, kNoSlot, 0, window_.label(i), window_.features(i)}));
    }
    for (std::uint64_t i = 0; i < reservoir_.size(); ++i) {
      COVEY_TRY(log_->append(
          {reservoir_.sequence(i), kNoSlot, i, 0, reservoir_.label(i), reservoir_.features(i)}));
    }
    if (update_.seen > 0) COVEY_TRY(log_->append(update_));
    return log_->append(state_);
  };
  COVEY_TRY(log_->rewrite(*layout_, write));
  compact_at_ = 2 * log_->bytes() + kMinWasteBytes;
  return {};
}

void ExampleStream::Store::compact_if_due() {
  if (!log_ || log_->bytes() < compact_at_) return;
  if (const auto result = rewrite_log(); !result.ok()) {
    compact_at_ = log_->bytes() + std::max(kMinWasteBytes, log_->bytes() / 4);  // tried again then
    notice(result.error().message);
  }
}

Result<void> ExampleStream::Store::begin_with(std::size_t features) {
  std::vector<std::uint32_t> shape = options_.shape;
  if (shape.empty()) {
    if (features == 0 || features > (std::size_t{1} << 28)) {
      return invalid_argument(fmt::format("an example of {} features; 1 to 2^28 work", features));
    }
    shape = {static_cast<std::uint32_t>(features)};
  }
  COVEY_ASSIGN(StreamLayout layout, layout_for(std::move(shape)));
  if (features != layout.example_size()) return check_example(features, 0);
  layout_ = layout;
  window_ = ExamplePool(layout.window, layout.example_bytes());
  reservoir_ = ExamplePool(layout.reservoir, layout.example_bytes());
  next_in_window_ = 0;
  if (!log_) return {};
  const auto written = rewrite_log();
  if (!written.ok()) layout_.reset();
  return written;
}

Result<void> ExampleStream::Store::check_example(std::size_t features, std::int32_t label) const {
  const std::uint64_t end = options_.classes > 0 ? options_.classes : kMaxLabel + 1;
  if (label < 0 || static_cast<std::uint64_t>(label) >= end) {
    return invalid_argument(fmt::format("label {} of an example is outside [0, {})", label, end));
  }
  std::size_t size = layout_ ? layout_->example_size() : 0;
  if (!layout_ && !options_.shape.empty()) {
    size = 1;
    for (const std::uint32_t extent : options_.shape) size *= extent;
  }
  if (size == 0 || features == size) return {};
  return invalid_argument(
      fmt::format("an example of {} features; those of this stream have {}", features, size));
}

Result<void> ExampleStream::Store::add(std::span<const float> features, std::int32_t label,
                                       std::uint64_t table_row) {
  const std::lock_guard lock(mutex_);
  COVEY_TRY(check_example(features.size(), label));
  const bool as_bytes = options_.element == Element::kByte;
  for (std::size_t i = 0; i < features.size(); ++i) {
    const bool fits = as_bytes ? features[i] >= 0 && features[i] <= 1 : std::isfinite(features[i]);
    if (fits) continue;
    return invalid_argument(fmt::format("feature {} of an example is {}, not {}", i, features[i],
                                        as_bytes ? "between 0 and 1" : "a finite number"));
  }
  if (!as_bytes) return add_locked(std::as_bytes(features), label, table_row);
  scratch_.resize(features.size());
  for (std::size_t i = 0; i < features.size(); ++i) {
    scratch_[i] = static_cast<std::byte>(std::lround(features[i] * 255));
  }
  return add_locked(scratch_, label, table_row);
}

Result<void> ExampleStream::Store::add_bytes(std::span<const std::uint8_t> features,
                                             std::int32_t label) {
  const std::lock_guard lock(mutex_);
  if (options_.element != Element::kByte) {
    return invalid_argument(
        "bytes were added to a stream of floats; its option element says which");
  }
  COVEY_TRY(check_example(features.size(), label));
  return add_locked(std::as_bytes(features), label, 0);
}

/// Vitter 1985, Algorithm R: the example takes the place of another with probability places /
/// examples so far.
std::uint64_t ExampleStream::Store::reservoir_slot() const {
  if (reservoir_.capacity() == 0) return kNoSlot;
  if (reservoir_.size() < reservoir_.capacity()) return reservoir_.size();
  const std::uint64_t slot = draws(Draw::kReservoir).below(state_.seen + 1);
  return slot < reservoir_.capacity() ? slot : kNoSlot;
}

Result<void> ExampleStream::Store::add_locked(std::span<const std::byte> features,
                                              std::int32_t label, std::uint64_t table_row) {
  if (!layout_) {
    const std::size_t one = options_.element == Element::kByte ? 1 : sizeof(float);
    COVEY_TRY(begin_with(features.size() / one));
  }
  const StreamExample example{state_.seen,
                              window_.capacity() > 0 ? next_in_window_ : kNoSlot,
                              reservoir_slot(),
                              table_row,
                              label,
                              features};
  const bool kept = example.window_slot != kNoSlot || example.reservoir_slot != kNoSlot;
  StreamState after = state_;
  after.seen = state_.seen + 1;
  if (table_row > 0) after.table_rows = table_row;
  if (log_) COVEY_TRY(kept ? log_->append(example) : log_->append(after));
  const bool placed = place(example);
  COVEY_ASSERT(placed);
  state_ = after;
  if (window_.capacity() > 0) next_in_window_ = (next_in_window_ + 1) % window_.capacity();
  compact_if_due();
  return {};
}

Result<void> ExampleStream::Store::clear() {
  const std::lock_guard lock(mutex_);
  if (log_) COVEY_TRY(log_->remove());
  layout_.reset();
  window_ = reservoir_ = ExamplePool();
  state_ = {};
  update_ = {};
  largest_label_ = 0;
  snapshots_.clear();
  return {};
}

Result<void> ExampleStream::Store::sync() {
  const std::lock_guard lock(mutex_);
  return log_ ? log_->sync() : Result<void>();
}

Result<std::uint64_t> ExampleStream::Store::begin_table(std::uint64_t table) {
  const std::lock_guard lock(mutex_);
  if (state_.table == table) return state_.table_rows;
  StreamState after = state_;
  after.table = table;
  after.table_rows = 0;
  // Before the first example there is no file to write it to; then nothing was taken either.
  if (log_ && layout_) COVEY_TRY(log_->append(after));
  state_ = after;
  return std::uint64_t{0};
}

Result<void> ExampleStream::Store::end_table() {
  const std::lock_guard lock(mutex_);
  state_.table = state_.table_rows = 0;
  return log_ && layout_ ? log_->append(state_) : Result<void>();
}

std::uint64_t ExampleStream::Store::seen() const {
  const std::lock_guard lock(mutex_);
  return state_.seen;
}

std::uint64_t ExampleStream::Store::kept() const {
  const std::lock_guard lock(mutex_);
  return window_.size() + reservoir_.size();
}

}  // namespace covey::client
