#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "run_file_keys.hpp"
#include "run_file_values.hpp"

/// The nested tables of a run file: [[fleet.class]], what kinds of devices there are, and
/// [client.class.NAME], what devices of one kind do otherwise.
namespace covey {

/// Whether `table`.`name` is where classes stand: fleet.class and client.class.
bool holds_classes(std::string_view table, std::string_view name);
Result<void> read_classes(std::string_view table, const toml::node& node, const RunSource& source,
                          RunConfig& config);

/// What `--set fleet.class.NAME.KEY=...` and `--set client.class.NAME.KEY=...` speak of.
struct ClassKey {
  std::string_view table;
  std::string class_name;
  std::string name;
  const RunKey* key;  ///< null: there is no such key
};
/// Nothing for a key that is of no class.
std::optional<ClassKey> find_class_key(std::string_view table, const std::string& name);
/// A class of the fleet must exist already, since its other traits have to come from somewhere; one
/// of the client's begins with what [client] says.
Result<void> override_class(const ClassKey& target, const toml::node& node, const RunSource& source,
                            RunConfig& config);

/// Classes next to a mix.
std::optional<KeyProblem> class_problem(const RunConfig& config);

/// One class as the writer puts it down: the keys' values are members of `values`.
struct ClassTable {
  std::string heading;  ///< "[[fleet.class]]"
  std::vector<RunKey> keys;
  RunConfig values;
};
/// Those that follow the keys of `table`.
std::vector<ClassTable> class_tables(std::string_view table, const RunConfig& config);

}  // namespace covey
