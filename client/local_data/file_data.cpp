#include "local_data/file_data.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace covey::client {

Result<std::uint64_t> ExampleFiles::count(const std::vector<std::string>& files) const {
  COVEY_ASSIGN(const models::DataSet data, load(files));
  return data.size();
}

FileData::FileData(std::unique_ptr<ExampleFiles> files,
                   std::function<void(std::string_view)> on_notice)
    : files_(std::move(files)), on_notice_(std::move(on_notice)) {}

Result<std::vector<FileData::Signature>> FileData::signatures(
    const std::vector<std::string>& files) {
  std::vector<Signature> result;
  for (const std::string& path : files) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) {
      return failed(fmt::format("{}: cannot be looked at: {}", path, std::strerror(errno)));
    }
    result.push_back(
        {path, static_cast<std::uint64_t>(status.st_size), status.st_ino,
         std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec});
  }
  return result;
}

namespace {

/// What changed lately may change again without its time doing so, and may have an unfinished end.
template <typename Signatures>
bool settled(const Signatures& signatures) {
  return std::ranges::none_of(signatures,
                              [](const auto& file) { return may_be_growing(file.modified_ns); });
}

}  // namespace

Result<std::shared_ptr<const models::DataSet>> FileData::examples() {
  const std::lock_guard lock(mutex_);
  COVEY_ASSIGN(const auto files, files_->files());
  COVEY_ASSIGN(auto now, signatures(files));  // before reading: a change during it shows next time
  if (auto held = held_.lock(); held && now == loaded_) return held;
  COVEY_ASSIGN(models::DataSet data, files_->load(files));
  auto shared = std::make_shared<const models::DataSet>(std::move(data));
  counted_ = settled(now) ? now : std::vector<Signature>();
  count_ = shared->size();
  held_ = shared;
  loaded_ = settled(now) ? std::move(now) : std::vector<Signature>();
  return std::shared_ptr<const models::DataSet>(std::move(shared));
}

std::uint64_t FileData::num_examples() {
  const std::lock_guard lock(mutex_);
  const auto count = [&]() -> Result<std::uint64_t> {
    COVEY_ASSIGN(const auto files, files_->files());
    COVEY_ASSIGN(auto now, signatures(files));
    if (!counted_.empty() && now == counted_) return count_;
    COVEY_ASSIGN(count_, files_->count(files));
    counted_ = settled(now) ? std::move(now) : std::vector<Signature>();
    return count_;
  }();
  const std::string problem = count.ok() ? "" : count.error().message;
  if (!problem.empty() && problem != told_ && on_notice_) on_notice_(problem);
  told_ = problem;
  return count.ok() ? *count : 0;
}

}  // namespace covey::client
