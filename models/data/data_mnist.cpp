#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <covey/models/data_set.hpp>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "data/idx.hpp"

namespace covey::models {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kDigits = 10;
constexpr float kByteScale = 1.0f / 255;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

/// `name` or `name`.gz in the directory or its sub-folder mnist.
Result<std::string> find_file(const std::string& directory, const std::string& name) {
  std::string looked;
  for (const fs::path& folder : {fs::path(directory), fs::path(directory) / "mnist"}) {
    for (const char* ending : {"", ".gz"}) {
      const fs::path path = folder / (name + ending);
      if (is_file(path)) return path.string();
    }
    looked += (looked.empty() ? "" : ", ") + folder.string();
  }
  return not_found(fmt::format(
      "{} (or {}.gz) is not in {}; name the folder with --data or COVEY_DATA", name, name, looked));
}

Result<DataSet> load_part(const std::string& directory, const std::string& part) {
  COVEY_ASSIGN(const std::string images_path, find_file(directory, part + "-images-idx3-ubyte"));
  COVEY_ASSIGN(const std::string labels_path, find_file(directory, part + "-labels-idx1-ubyte"));
  COVEY_ASSIGN(IdxArray images, read_idx(images_path, 3));
  COVEY_ASSIGN(const IdxArray labels, read_idx(labels_path, 1));
  if (images.extents[0] != labels.extents[0]) {
    return malformed(fmt::format("{}: {} labels for the {} images of {}", labels_path,
                                 labels.extents[0], images.extents[0], images_path));
  }
  const auto bad = std::ranges::find_if(labels.values, [](auto label) { return label >= kDigits; });
  if (bad != labels.values.end()) {
    return malformed(fmt::format("{}: label {} is {}, outside [0, {})", labels_path,
                                 bad - labels.values.begin(), *bad, kDigits));
  }
  auto set =
      DataSet::from_bytes({images.extents[1], images.extents[2], 1}, std::move(images.values),
                          kByteScale, {labels.values.begin(), labels.values.end()}, kDigits);
  if (!set.ok()) return with_context(images_path, set.error());
  return set;
}

}  // namespace

Result<FederatedData> load_mnist(const std::string& directory, DataParts parts) {
  FederatedData data;
  if (parts == DataParts::kAll) {
    COVEY_ASSIGN(data.train, load_part(directory, "train"));
  }
  COVEY_ASSIGN(data.test, load_part(directory, "t10k"));
  if (parts == DataParts::kTestOnly) {
    COVEY_ASSIGN(data.train, DataSet::from_bytes(data.test.shape(), {}, kByteScale, {}, kDigits));
    return data;
  }
  if (data.train.shape() != data.test.shape()) {
    return malformed(fmt::format("{}: training images are {}x{}, test images {}x{}", directory,
                                 data.train.shape()[0], data.train.shape()[1], data.test.shape()[0],
                                 data.test.shape()[1]));
  }
  return data;
}

}  // namespace covey::models
