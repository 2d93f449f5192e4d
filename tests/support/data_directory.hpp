#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace covey::test {

/// The folder whose sub-folder mnist holds the MNIST files: COVEY_DATA, or data/ beside the source
/// tree or in a folder beside it. Nothing where there is none.
inline std::optional<std::string> data_directory() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  std::vector<fs::path> candidates;
  if (const char* named = std::getenv("COVEY_DATA"); named != nullptr) candidates.push_back(named);
  const fs::path around = fs::path(COVEY_SOURCE_DIR).parent_path();
  candidates.push_back(around / "data");
  std::vector<fs::path> siblings;
  for (const auto& entry : fs::directory_iterator(around, ignored)) {
    siblings.push_back(entry.path() / "data");
  }
  std::ranges::sort(siblings);
  candidates.insert(candidates.end(), siblings.begin(), siblings.end());
  for (const fs::path& candidate : candidates) {
    for (const char* ending : {"", ".gz"}) {
      const std::string name = std::string("train-images-idx3-ubyte") + ending;
      if (fs::exists(candidate / "mnist" / name, ignored) ||
          fs::exists(candidate / name, ignored)) {
        return candidate.string();
      }
    }
  }
  return std::nullopt;
}

/// Tells, where a test has no data, that it did not test.
inline void print_skipped(const std::string& what) {
  std::cout << "SKIPPED: " << what << "; set COVEY_DATA to the folder that holds mnist/\n";
}

/// A new directory that disappears with everything in it.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "covey-data-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    path_ = name;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }

  /// Writes a file, with the folders above it, and returns its path.
  std::string write(const std::string& name, const std::string& content) const {
    const auto path = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }

 private:
  std::string path_;
};

}  // namespace covey::test
