#include "tree_rules.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

namespace covey::tree {
namespace {

// Folder -> folders it may include, beside itself. A `daemon` folder, examples and tests may
// include anything.
const std::map<std::string, std::set<std::string>, std::less<>> kArrows = {
    {"core", {}},
    {"proto", {"core"}},
    {"strategies", {"core"}},
    {"privacy", {"core"}},
    {"models", {"core"}},
    {"torch", {"core", "models"}},
    {"compression", {"core"}},  // transport/compression, a library of its own
    {"client", {"core", "strategies", "privacy", "models", "compression"}},
    {"server", {"core", "strategies", "privacy", "models", "compression"}},
    {"transport", {"core", "proto", "compression"}},
    {"simulation",
     {"core", "client", "server", "models", "strategies", "privacy", "proto", "compression"}},
};
const std::set<std::string, std::less<>> kFree = {"examples", "tests"};

struct Fence {
  std::string_view library;
  std::vector<std::string_view>
      headers;  ///< how an include of it begins, or ends if it begins with *
  std::vector<std::string_view> allowed;  ///< how the path of a file that may name it begins
  bool daemons = false;                   ///< */daemon may, too
};
const std::vector<Fence> kFences = {
    {"protobuf", {"google/protobuf", "*.pb.h"}, {"proto/"}},
    {"Asio", {"boost/asio", "boost/beast", "asio.hpp", "asio/"}, {"transport/"}, true},
    {"SQLite", {"sqlite3", "SQLiteCpp/"}, {"server/"}},
    {"toml++", {"toml++/", "toml.hpp"}, {"core/run_file"}, true},
    {"torch", {"torch/", "ATen/", "c10/"}, {"models/torch/"}},
    {"MPI", {"boost/mpi", "mpi.h"}, {"simulation/mpi/"}},
};
const std::vector<Fence> kNotInPublicHeaders = {
    {"protobuf", {"google/protobuf", "*.pb.h"}, {}},
    {"Asio", {"boost/asio", "boost/beast", "asio.hpp", "asio/"}, {}},
    {"spdlog", {"spdlog/"}, {}},
    {"OpenSSL", {"openssl/"}, {}},
    {"torch", {"torch/", "ATen/", "c10/"}, {}},
};

constexpr std::size_t kMaxFileLines = 450;
constexpr std::size_t kMaxFunctionLines = 80;

struct Include {
  std::string name;
  bool quoted = false;
  std::size_t line = 0;
};

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
}

std::vector<Include> includes(std::string_view text) {
  std::vector<Include> found;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = trimmed(text.substr(begin, end - begin));
    begin = end + 1;
    ++number;
    if (!line.starts_with('#')) continue;
    line = trimmed(line.substr(1));
    if (!line.starts_with("include")) continue;
    line = trimmed(line.substr(7));
    if (line.empty() || (line[0] != '<' && line[0] != '"')) continue;
    const std::size_t close = line.find(line[0] == '<' ? '>' : '"', 1);
    found.push_back({std::string(line.substr(1, close - 1)), line[0] == '"', number});
  }
  return found;
}

bool is_source(std::string_view path) {
  return path.ends_with(".cpp") || path.ends_with(".hpp") || path.ends_with(".h") ||
         path.ends_with(".cc");
}

std::string top_folder(std::string_view path) {
  return std::string(path.substr(0, path.find('/')));
}

// The library that a file belongs to: its top folder, but for libtorch's, which is fenced off.
std::string library_of(std::string_view path) {
  if (path.starts_with("models/torch/")) return "torch";
  return path.starts_with("transport/compression/") ? "compression" : top_folder(path);
}

// What runs: a program, or the device that lives in another one's process (client/capi).
bool in_daemon(std::string_view path) {
  return path.find("/daemon/") != std::string_view::npos || path.starts_with("client/capi/");
}

bool matches(const Fence& fence, std::string_view include) {
  return std::any_of(fence.headers.begin(), fence.headers.end(), [&](std::string_view header) {
    return header.starts_with('*') ? include.ends_with(header.substr(1))
                                   : include.starts_with(header);
  });
}

bool allows(const Fence& fence, std::string_view path) {
  if (fence.daemons && in_daemon(path)) return true;
  return std::any_of(fence.allowed.begin(), fence.allowed.end(),
                     [&](std::string_view start) { return path.starts_with(start); });
}

struct Target {
  std::string folder;
  bool is_private = false;
};

// The folder of ours that an include names; nothing for other libraries.
std::optional<Target> target_of(const SourceFile& file, const Include& include,
                                const std::set<std::string, std::less<>>& paths) {
  if (include.name.starts_with("covey/")) {
    const std::string rest = include.name.substr(6);
    const bool is_core = rest.find('/') == std::string::npos;
    return Target{is_core ? "core" : top_folder(rest), false};
  }
  const auto folder = std::filesystem::path(file.path).parent_path();
  const std::string beside = (folder / include.name).lexically_normal().generic_string();
  const std::string from_root =
      std::filesystem::path(include.name).lexically_normal().generic_string();
  for (const std::string& path : {beside, from_root}) {
    if (paths.contains(path)) return Target{library_of(path), true};
  }
  return std::nullopt;
}

}  // namespace

Violations dependency_arrows(const Tree& tree) {
  Violations violations;
  std::set<std::string, std::less<>> paths;
  for (const SourceFile& file : tree) paths.insert(file.path);
  for (const SourceFile& file : tree) {
    const std::string from = library_of(file.path);
    if (!is_source(file.path) || kFree.contains(from) || in_daemon(file.path)) continue;
    const auto arrows = kArrows.find(from);
    if (arrows == kArrows.end()) {
      violations.push_back(
          fmt::format("{}: folder {} is not in the dependency table", file.path, from));
      continue;
    }
    for (const Include& include : includes(file.text)) {
      const auto target = target_of(file, include, paths);
      if (!target || target->folder == from) continue;
      if (target->is_private) {
        violations.push_back(fmt::format("{}:{}: includes \"{}\", a private header of {}",
                                         file.path, include.line, include.name, target->folder));
      } else if (!arrows->second.contains(target->folder)) {
        violations.push_back(fmt::format("{}:{}: {} must not depend on {} (<{}>)", file.path,
                                         include.line, from, target->folder, include.name));
      }
    }
  }
  return violations;
}

Violations third_party_fences(const Tree& tree) {
  Violations violations;
  for (const SourceFile& file : tree) {
    if (!is_source(file.path) || kFree.contains(top_folder(file.path))) continue;
    const bool is_public = file.path.find("/include/") != std::string::npos;
    for (const Include& include : includes(file.text)) {
      for (const Fence& fence : kFences) {
        if (!matches(fence, include.name) || allows(fence, file.path)) continue;
        violations.push_back(fmt::format("{}:{}: {} is named only in {}{} (<{}>)", file.path,
                                         include.line, fence.library, fence.allowed[0],
                                         fence.daemons ? " and daemons" : "", include.name));
      }
      for (const Fence& fence : kNotInPublicHeaders) {
        if (!is_public || !matches(fence, include.name)) continue;
        violations.push_back(fmt::format("{}:{}: a public header must not name {} (<{}>)",
                                         file.path, include.line, fence.library, include.name));
      }
    }
  }
  return violations;
}

Violations sizes(const Tree& tree) {
  Violations violations;
  for (const SourceFile& file : tree) {
    if (!is_source(file.path) || top_folder(file.path) == "tests") continue;
    const auto lines =
        static_cast<std::size_t>(std::count(file.text.begin(), file.text.end(), '\n'));
    if (lines > kMaxFileLines) {
      violations.push_back(fmt::format("{}: {} lines, at most {}: split it by purpose", file.path,
                                       lines, kMaxFileLines));
    }
    for (const FunctionLength& function : function_lengths(file.text)) {
      if (function.lines <= kMaxFunctionLines) continue;
      violations.push_back(fmt::format("{}:{}: {} has {} lines, at most {}", file.path,
                                       function.line, function.name, function.lines,
                                       kMaxFunctionLines));
    }
  }
  return violations;
}

namespace {

// Words of a CMake file without its comments.
std::set<std::string, std::less<>> cmake_words(std::string_view text) {
  std::set<std::string, std::less<>> words;
  std::string word;
  bool comment = false;
  for (const char c : std::string(text) + "\n") {
    comment = c == '\n' ? false : comment || c == '#';
    const bool separates =
        comment || std::string_view(" \t\n()\"").find(c) != std::string_view::npos;
    if (!separates) {
      word += c;
    } else if (!word.empty()) {
      words.insert(std::move(word));
      word.clear();
    }
  }
  return words;
}

// What is wrong with the test `name` of `folder`, if anything: some CMakeLists.txt must make a
// program of it, and every folder from there up to tests/ must be added by the one above.
std::string why_not_built(const std::map<std::string, const SourceFile*>& cmake_files,
                          const std::string& folder, const std::string& name) {
  const auto own = cmake_files.find(folder);
  if (own == cmake_files.end()) return folder + " has no CMakeLists.txt";
  const auto words = cmake_words(own->second->text);
  const auto is_test_glob = [&](const std::string& word) { return word.ends_with("*_test.cpp"); };
  if (!words.contains("covey_test") && !words.contains(name) &&
      std::none_of(words.begin(), words.end(), is_test_glob)) {
    return folder + "/CMakeLists.txt does not build it";
  }
  for (std::filesystem::path at = folder; at != "tests"; at = at.parent_path()) {
    const std::string parent = at.parent_path().generic_string();
    const auto above = cmake_files.find(parent);
    if (above == cmake_files.end() ||
        !cmake_words(above->second->text).contains(at.filename().generic_string())) {
      return fmt::format("{}/CMakeLists.txt does not add {}", parent,
                         at.filename().generic_string());
    }
  }
  return "";
}

}  // namespace

Violations tests_are_built(const Tree& tree) {
  Violations violations;
  std::map<std::string, const SourceFile*> cmake_files;
  for (const SourceFile& file : tree) {
    const std::filesystem::path path = file.path;
    if (path.filename() == "CMakeLists.txt") {
      cmake_files[path.parent_path().generic_string()] = &file;
    }
  }
  for (const SourceFile& file : tree) {
    if (!file.path.ends_with("_test.cpp") || file.path.ends_with("/self_test.cpp")) continue;
    if (top_folder(file.path) != "tests") {
      violations.push_back(file.path + ": tests lie in tests/");
      continue;
    }
    const std::filesystem::path path = file.path;
    const std::string problem = why_not_built(cmake_files, path.parent_path().generic_string(),
                                              path.filename().generic_string());
    if (!problem.empty()) violations.push_back(file.path + ": is never built: " + problem);
  }
  return violations;
}

}  // namespace covey::tree
