#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "local_data/file_data.hpp"
#include "local_data/pnm.hpp"

namespace covey::client {
namespace {

namespace fs = std::filesystem;

/// What the directory has directly in it: tables or sub-folders, in order of their names; no hidden
/// ones.
struct Listing {
  std::vector<std::string> tables;
  std::vector<std::string> folders;  ///< names
};

bool ends_with(const fs::path& path, std::initializer_list<std::string_view> endings) {
  std::string ending = path.extension().string();
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  });
  return std::ranges::find(endings, ending) != endings.end();
}

/// Paths in a directory, sorted, without hidden ones.
Result<std::vector<fs::path>> entries_of(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    if (!at->path().filename().string().starts_with('.')) found.push_back(at->path());
  }
  if (error) {
    return not_found(fmt::format("{}: cannot be listed: {}", directory.string(), error.message()));
  }
  std::ranges::sort(found);
  return found;
}

Result<Listing> list(const std::string& directory) {
  COVEY_ASSIGN(const auto entries, entries_of(directory));
  Listing listing;
  std::error_code ignored;
  for (const fs::path& path : entries) {
    if (fs::is_directory(path, ignored)) listing.folders.push_back(path.filename().string());
    if (fs::is_regular_file(path, ignored) && ends_with(path, {".csv"})) {
      listing.tables.push_back(path.string());
    }
  }
  return listing;
}

/// A folder of tables, or of folders of images. Which of them is looked at anew each time.
class Directory : public ExampleFiles {
 public:
  explicit Directory(LocalDataSpec spec) : spec_(std::move(spec)) {}

  Result<std::vector<std::string>> files() const override {
    COVEY_ASSIGN(Listing listing, list(spec_.path));
    if (!listing.tables.empty()) return std::move(listing.tables);
    std::vector<std::string> images;
    for (const std::string& folder : listing.folders) {
      COVEY_ASSIGN(const auto entries, entries_of(fs::path(spec_.path) / folder));
      for (const fs::path& path : entries) {
        if (ends_with(path, {".pgm", ".ppm"})) images.push_back(path.string());
      }
    }
    if (images.empty()) {
      return not_found(fmt::format(
          "{}: has neither tables (*.csv) nor folders, one for each class, of images in PGM or PPM",
          spec_.path));
    }
    return images;
  }

  Result<models::DataSet> load(const std::vector<std::string>& files) const override {
    if (are_images(files)) return load_images(files);
    return load_tables(files, spec_);
  }

  Result<std::uint64_t> count(const std::vector<std::string>& files) const override {
    if (are_images(files)) return files.size();
    return ExampleFiles::count(files);
  }

 private:
  static bool are_images(const std::vector<std::string>& files) {
    return !ends_with(files.front(), {".csv"});
  }

  /// The names of all classes in the model's order.
  Result<std::vector<std::string>> class_names() const {
    if (!spec_.class_names.empty()) return spec_.class_names;
    COVEY_ASSIGN(Listing listing, list(spec_.path));
    return std::move(listing.folders);
  }

  Result<models::DataSet> load_images(const std::vector<std::string>& files) const {
    COVEY_ASSIGN(const auto classes, class_names());
    PnmImage first, image;
    std::vector<std::uint8_t> pixels;
    std::vector<std::int32_t> labels;
    for (const std::string& path : files) {
      const std::string folder = fs::path(path).parent_path().filename().string();
      const auto found = std::ranges::find(classes, folder);
      if (found == classes.end()) {
        return failed(
            fmt::format("{}: its folder is none of the classes {}", path, fmt::join(classes, "|")));
      }
      COVEY_ASSIGN(const bool whole, read_pnm(path, max_bytes_of(spec_), image));
      if (!whole) continue;  // is being written
      if (labels.empty()) first = image;
      if (image.extents != first.extents) {
        return failed(fmt::format("{}: is {}, the images before it are {}", path, describe(image),
                                  describe(first)));
      }
      if (pixels.size() + image.pixels.size() > max_bytes_of(spec_)) {
        return failed(
            fmt::format("{}: the images take more than the {} bytes that they may (max-bytes)",
                        spec_.path, max_bytes_of(spec_)));
      }
      if (labels.empty())
        pixels.reserve(static_cast<std::size_t>(std::min<std::uint64_t>(
            max_bytes_of(spec_), std::uint64_t{files.size()} * image.pixels.size())));
      pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
      labels.push_back(static_cast<std::int32_t>(found - classes.begin()));
    }
    if (labels.empty()) return failed(spec_.path + ": has no whole image");
    const auto count = std::max<std::size_t>(spec_.num_classes, classes.size());
    auto data = models::DataSet::from_bytes(first.extents, std::move(pixels), 1.0f / 255,
                                            std::move(labels), static_cast<std::uint32_t>(count));
    if (!data.ok()) return with_context(spec_.path, data.error());
    return data;
  }

  LocalDataSpec spec_;
};

}  // namespace

std::unique_ptr<ExampleFiles> directory_of_files(const LocalDataSpec& spec) {
  return std::make_unique<Directory>(spec);
}

}  // namespace covey::client
