#include <fmt/format.h>

#include <covey/models/example_files.hpp>
#include <filesystem>
#include <utility>

#include "local_data/file_data.hpp"

namespace covey::client {
namespace {

namespace fs = std::filesystem;

/// `stem`-images-idx3-ubyte and `stem`-labels-idx1-ubyte, plain or .gz.
class IdxFiles : public ExampleFiles {
 public:
  explicit IdxFiles(LocalDataSpec spec) : spec_(std::move(spec)) {}

  Result<std::vector<std::string>> files() const override {
    std::error_code error;
    const std::string stem = fs::is_directory(spec_.path, error)
                                 ? (fs::path(spec_.path) / "train").string()
                                 : spec_.path;
    COVEY_ASSIGN(std::string images, existing(stem + "-images-idx3-ubyte"));
    COVEY_ASSIGN(std::string labels, existing(stem + "-labels-idx1-ubyte"));
    return std::vector{std::move(images), std::move(labels)};
  }

  Result<models::DataSet> load(const std::vector<std::string>& files) const override {
    auto data = models::load_idx(files[0], files[1], spec_.num_classes, max_bytes_of(spec_));
    if (data.ok() && data->empty()) return failed(files[0] + ": holds no images");
    return data;
  }

  Result<std::uint64_t> count(const std::vector<std::string>& files) const override {
    return models::count_idx(files[1]);
  }

 private:
  static Result<std::string> existing(const std::string& path) {
    std::error_code error;
    for (const char* ending : {"", ".gz"}) {
      if (fs::is_regular_file(path + ending, error)) return path + ending;
    }
    return not_found(fmt::format("{} (or {}.gz): there is no such file", path, path));
  }

  LocalDataSpec spec_;
};

}  // namespace

std::unique_ptr<ExampleFiles> idx_files(const LocalDataSpec& spec) {
  return std::make_unique<IdxFiles>(spec);
}

}  // namespace covey::client
