#pragma once

#include <covey/client/example_stream.hpp>
#include <covey/random.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "local_data/example_pool.hpp"
#include "local_data/stream_log.hpp"

namespace covey::client {

/// What an ExampleStream is made of. Every method takes the lock.
class ExampleStream::Store {
 public:
  explicit Store(StreamOptions options) : options_(std::move(options)) {}
  Result<void> open();

  Result<void> add(std::span<const float> features, std::int32_t label,
                   std::uint64_t table_row = 0);
  Result<void> add_bytes(std::span<const std::uint8_t> features, std::int32_t label);
  Result<void> clear();
  Result<void> sync();
  /// How many rows of this table were taken in an earlier attempt.
  Result<std::uint64_t> begin_table(std::uint64_t table);
  Result<void> end_table();

  std::uint64_t seen() const;
  std::uint64_t kept() const;
  std::uint64_t num_examples() const;
  Result<std::shared_ptr<const models::DataSet>> snapshot();
  void update_made(const models::DataSet* examples, RunId run, RoundNumber round);
  void update_counted(RunId run, RoundNumber round);

  std::mutex taking;  ///< of tables: one at a time

 private:
  struct Snapshot {
    std::weak_ptr<const models::DataSet> examples;
    const models::DataSet* address = nullptr;
    std::uint64_t seen = 0;  ///< when it was made
    std::uint64_t used = 0;  ///< likewise
  };
  /// Places of an example in a pool, by the order in which the examples came.
  using Slots = std::vector<std::uint64_t>;

  enum class Draw : std::uint32_t { kReservoir = 1, kReplay = 2, kSmallerReservoir = 3 };

  Result<void> load();
  RandomStream draws(Draw purpose) const;
  Result<StreamLayout> layout_for(std::vector<std::uint32_t> shape) const;
  Result<void> check_file(const StreamLayout& layout) const;
  Result<void> place_anew(const StreamLayout& layout);
  Result<void> begin_with(std::size_t features);
  Result<void> add_locked(std::span<const std::byte> features, std::int32_t label,
                          std::uint64_t table_row);
  Result<void> check_example(std::size_t features, std::int32_t label) const;
  bool place(const StreamExample& example);
  std::uint64_t reservoir_slot() const;
  Result<void> rewrite_log();
  void compact_if_due();
  Slots in_order(const ExamplePool& pool, std::uint64_t from, std::uint64_t to) const;
  std::uint64_t count_between(const ExamplePool& pool, std::uint64_t from, std::uint64_t to) const;
  std::uint64_t replayed(std::uint64_t fresh, std::uint64_t older) const;
  const ExamplePool& all() const { return reservoir_.capacity() > 0 ? reservoir_ : window_; }
  Result<std::shared_ptr<const models::DataSet>> copy(const Slots& fresh, const Slots& older) const;
  void notice(std::string_view text) const {
    if (options_.on_notice) options_.on_notice(text);
  }

  const StreamOptions options_;
  mutable std::mutex mutex_;
  std::optional<StreamLayout> layout_;  ///< nothing: no example came yet
  ExamplePool window_;
  ExamplePool reservoir_;
  std::uint64_t next_in_window_ = 0;  ///< the place of the oldest, once all are taken
  StreamState state_;
  StreamUpdate update_;
  std::int32_t largest_label_ = 0;
  std::unique_ptr<StreamLog> log_;  ///< null: in memory only
  std::uint64_t compact_at_ = 0;    ///< bytes of the file
  std::vector<Snapshot> snapshots_;
  std::vector<std::byte> scratch_;
};

}  // namespace covey::client
