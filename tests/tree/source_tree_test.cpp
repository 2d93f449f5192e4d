// The rules of tree_rules.hpp, on the sources this program was built from.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tree_rules.hpp"

namespace fs = std::filesystem;
using namespace covey::tree;

namespace {

// Builds, runs and what a version control system keeps are not sources.
bool is_skipped(const std::string& name) {
  return name.starts_with('.') || name.starts_with("build") || name == "runs" || name == "kits";
}

Tree read_tree() {
  Tree tree;
  const fs::path root = COVEY_SOURCE_DIR;
  for (fs::recursive_directory_iterator entry(root), end; entry != end; ++entry) {
    const std::string name = entry->path().filename().string();
    if (entry->is_directory() && is_skipped(name)) {
      entry.disable_recursion_pending();
      continue;
    }
    const std::string extension = entry->path().extension().string();
    const bool wanted = extension == ".cpp" || extension == ".hpp" || extension == ".h" ||
                        extension == ".cc" || name == "CMakeLists.txt";
    if (!entry->is_regular_file() || !wanted) continue;
    std::ifstream file(entry->path(), std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    tree.push_back({entry->path().lexically_relative(root).generic_string(), text.str()});
  }
  return tree;
}

void expect_none(const Violations& violations) {
  std::string list;
  for (const auto& violation : violations) list += violation + "\n";
  INFO(list);
  CHECK(violations.empty());
}

}  // namespace

TEST_CASE("the source tree was read") {
  const Tree tree = read_tree();
  const auto has = [&](const std::string& path) {
    return std::any_of(tree.begin(), tree.end(), [&](const auto& f) { return f.path == path; });
  };
  CHECK(has("core/include/covey/result.hpp"));
  CHECK(has("strategies/fedavg.cpp"));
  CHECK(has("tests/tree/source_tree_test.cpp"));
}

TEST_CASE("dependencies point one way") { expect_none(dependency_arrows(read_tree())); }

TEST_CASE("third-party libraries stay behind their fences") {
  expect_none(third_party_fences(read_tree()));
}

TEST_CASE("files and functions stay short") { expect_none(sizes(read_tree())); }

TEST_CASE("every test file is built") { expect_none(tests_are_built(read_tree())); }

// CMake takes a test's name as part of a list: a bracket swallows the names behind it, a semicolon cuts it in two,
// and such tests never run.
TEST_CASE("no test's name has a bracket or a semicolon") {
  Violations found;
  for (const auto& file : read_tree()) {
    if (!file.path.ends_with("_test.cpp")) continue;
    for (std::size_t at = file.text.find("\nTEST_CASE("); at != std::string::npos;
         at = file.text.find("\nTEST_CASE(", at + 1)) {
      // Up to a tag, which is a literal of its own, or the end of the line.
      const std::size_t end = std::min(file.text.find("\"[", at + 13), file.text.find(") {", at));
      const std::string name = file.text.substr(at + 1, end - at - 1);
      if (name.find_first_of("[];") != std::string::npos) found.push_back(file.path + ": " + name);
    }
  }
  expect_none(found);
}
