#include "local_data/inbox.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <utility>

#include "local_data/file_data.hpp"

namespace covey::client {
namespace {

namespace fs = std::filesystem;

// Tables are taken in on the thread that asks, which has other things to do, too.
constexpr std::uint64_t kMaxBytesAtATime = std::uint64_t{4} << 20;

struct Table {
  std::string path;
  std::uint64_t size = 0;
};

/// What lies in the directory and is not being written any more.
std::vector<Table> tables_in(const std::string& directory) {
  std::vector<Table> tables;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    struct stat status {};
    const std::string path = at->path().string();
    if (at->path().extension() != ".csv" || ::stat(path.c_str(), &status) != 0) continue;
    const std::int64_t modified =
        std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
    if (!S_ISREG(status.st_mode) || may_be_growing(modified)) continue;
    tables.push_back({path, static_cast<std::uint64_t>(status.st_size)});
  }
  std::ranges::sort(tables, {}, &Table::path);
  return tables;
}

}  // namespace

Inbox::Inbox(std::unique_ptr<ExampleStream> stream, InboxOptions options,
             std::function<void(std::string_view)> on_notice)
    : stream_(std::move(stream)), options_(std::move(options)), on_notice_(std::move(on_notice)) {}

void Inbox::take_in() {
  const std::lock_guard lock(mutex_);
  std::uint64_t bytes = 0;
  for (const Table& table : tables_in(options_.directory)) {
    if (bytes > 0 && bytes + table.size > kMaxBytesAtATime) return;
    bytes += table.size;
    const auto taken = stream_->take_csv(table.path, options_.label, options_.classes);
    if (taken.ok()) continue;
    const bool own_fault = taken.error().code == ErrorCode::kMalformed ||
                           taken.error().code == ErrorCode::kInvalidArgument;
    std::string text = taken.error().message;
    if (own_fault) {
      std::error_code error;
      fs::rename(table.path, table.path + ".refused", error);
      text +=
          error ? "; it cannot be put aside" : "; it is put aside as " + table.path + ".refused";
    }
    if (on_notice_) on_notice_(text);
    if (!own_fault) return;  // a disk that is full takes no other either
  }
}

Result<std::shared_ptr<const models::DataSet>> Inbox::examples() {
  take_in();
  return stream_->examples();
}

std::uint64_t Inbox::num_examples() {
  take_in();
  return stream_->num_examples();
}

void Inbox::update_made(const std::shared_ptr<const models::DataSet>& examples, RunId run,
                        RoundNumber round) {
  stream_->update_made(examples, run, round);
}

void Inbox::update_counted(RunId run, RoundNumber round) { stream_->update_counted(run, round); }

}  // namespace covey::client
