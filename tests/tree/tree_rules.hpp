#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

/// The rules of the source tree that a compiler does not check: which folder may include which,
/// where third-party libraries are named, how long files and functions are, that every test is
/// built. The rules read strings, so each is tested with violations planted in a tree that is on no
/// disk.
namespace covey::tree {

struct SourceFile {
  std::string path;  ///< from the root: "server/round_coordinator.cpp"
  std::string text;
};
using Tree = std::vector<SourceFile>;

/// "server/store.cpp:12: ..." each.
using Violations = std::vector<std::string>;

/// Dependencies point one way (the table is at the top of tree_rules.cpp), by <covey/X/...> and by
/// private headers alike. A new top-level folder with sources must enter the table.
Violations dependency_arrows(const Tree& tree);
/// protobuf, Asio, SQLite, toml++ and torch are named by one folder each; public headers name none
/// of these, nor spdlog and OpenSSL.
Violations third_party_fences(const Tree& tree);
/// At most 450 lines in a file and 80 in a function, tests excepted.
Violations sizes(const Tree& tree);
/// Every *_test.cpp lies in a folder that CMake builds into a test program.
Violations tests_are_built(const Tree& tree);

struct FunctionLength {
  std::string name;
  std::size_t line = 0;   ///< of the opening brace, from 1
  std::size_t lines = 0;  ///< from the opening to the closing brace
};
/// The functions of a C++ source, found by their braces: code that clang-format has formatted.
std::vector<FunctionLength> function_lengths(std::string_view text);

}  // namespace covey::tree
