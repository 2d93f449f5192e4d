#pragma once

#include <toml++/toml.h>

#include <covey/result.hpp>
#include <string>
#include <string_view>

#include "run_file_keys.hpp"

namespace covey {

/// Where values come from: a file, whose lines are named, or one override.
struct RunSource {
  std::string name;
  bool has_lines = true;

  /// "run.toml:12", or the override.
  std::string place(const toml::node& node) const {
    return has_lines ? name + ":" + std::to_string(node.source().begin.line) : name;
  }
};

/// "a string \"fast\"", "the number 0.5", "a table".
std::string describe(const toml::node& node);

/// "run.toml:12: client.learning-rate: <sentence>"
Error key_error(const std::string& place, std::string_view key, std::string_view sentence);

/// Checks `node` against the key's type and range and stores it in `config`, which is left as it
/// was on error.
Result<void> assign_value(const RunKey& key, const toml::node& node, const RunSource& source,
                          RunConfig& config);
/// The same, for a key that messages call `path`: "client.class.low-end.batch-size".
Result<void> assign_value(const RunKey& key, const std::string& path, const toml::node& node,
                          const RunSource& source, RunConfig& config);

/// A finite number, or an error naming the key.
Result<double> read_number(const std::string& key, const toml::node& node, const RunSource& source);

}  // namespace covey
