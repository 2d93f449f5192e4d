#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace covey {

/// One value of a settings file.
struct Setting {
  std::string key;  ///< whole: "certificates.ca"
  std::variant<bool, std::int64_t, double, std::string> value;
  std::size_t line = 0;
};

/// A device's configuration or a kit's: TOML of strings, numbers and booleans, in tables or not.
/// Arrays, dates, inline tables and text over several lines are refused, no such file has any. (A
/// whole reader of TOML would be a fifteenth of a device's program.)
class SettingsFile {
 public:
  /// Errors name the file and the line.
  static Result<SettingsFile> read(const std::string& path);
  /// `name`: of the file, for errors.
  static Result<SettingsFile> parse(std::string name, std::string_view text);

  const std::string& name() const { return name_; }
  const std::vector<Setting>& settings() const { return settings_; }
  /// nullptr: it has no such key.
  const Setting* find(std::string_view key) const;

  /// "client.toml:3: "server" must be ..."
  Error wrong(const Setting& setting, std::string_view problem) const;
  Error missing(std::string_view key) const;

 private:
  std::string name_;
  std::vector<Setting> settings_;
};

}  // namespace covey
