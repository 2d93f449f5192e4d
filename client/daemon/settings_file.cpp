#include "client/daemon/settings_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

namespace covey {
namespace {

/// What these files hold takes a few hundred bytes; one that is far larger is another one.
constexpr std::size_t kMostBytes = 64 << 10;

bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_' || c == '.';
}

/// One line, read from the left. What a method gives as an error is the sentence behind "file:line:
/// ".
class Line {
 public:
  explicit Line(std::string_view text) : rest_(text) { skip_space(); }

  bool at_end() const { return rest_.empty() || rest_.front() == '#'; }
  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
  }

  /// A bare key, or several with dots between them.
  Result<std::string> key() {
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is_key_character);
    std::string key(rest_.begin(), end);
    rest_.remove_prefix(key.size());
    skip_space();
    const bool whole = !key.empty() && key.front() != '.' && key.back() != '.' &&
                       key.find("..") == std::string::npos;
    if (!whole) return malformed("here stands no key");
    return key;
  }

  Result<decltype(Setting::value)> value() {
    if (rest_.starts_with("\"\"\"") || rest_.starts_with("'''")) {
      return malformed("a text of several lines is not for this file");
    }
    if (take('"')) return as_value(text());
    if (take('\'')) return as_value(literal_text());
    const auto end = std::find_if(rest_.begin(), rest_.end(),
                                  [](char c) { return c == ' ' || c == '\t' || c == '#'; });
    const std::string word(rest_.begin(), end);
    rest_.remove_prefix(word.size());
    if (word == "true") return decltype(Setting::value)(true);
    if (word == "false") return decltype(Setting::value)(false);
    return number(word);
  }

 private:
  static Result<decltype(Setting::value)> as_value(Result<std::string> text) {
    if (!text.ok()) return text.error();
    return decltype(Setting::value)(std::move(*text));
  }

  Result<std::string> literal_text() {
    const std::size_t end = rest_.find('\'');
    if (end == std::string_view::npos) return malformed("the text has no end: ' is missing");
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }

  Result<std::string> text() {
    std::string text;
    while (!rest_.empty()) {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"') return text;
      if (c != '\\') {
        text += c;
        continue;
      }
      constexpr std::string_view kEscapes = "\"\\ntr", kMeant = "\"\\\n\t\r";
      const std::size_t which =
          rest_.empty() ? std::string_view::npos : kEscapes.find(rest_.front());
      if (which == std::string_view::npos) return malformed("a \\ in a text is written \\\\");
      text += kMeant[which];
      rest_.remove_prefix(1);
    }
    return malformed("the text has no end: \" is missing");
  }

  static Result<decltype(Setting::value)> number(const std::string& word) {
    std::string digits = word;  // 1_000_000 is a number
    for (std::size_t i = 1; i + 1 < digits.size(); ++i) {
      if (digits[i] == '_' && std::isdigit(static_cast<unsigned char>(digits[i - 1])) != 0)
        digits.erase(i, 1);
    }
    const char* begin = digits.data() + (digits.starts_with('+') ? 1 : 0);
    const char* const end = digits.data() + digits.size();
    if (std::int64_t whole = 0; is_all(std::from_chars(begin, end, whole), end)) {
      return decltype(Setting::value)(whole);
    }
    if (double real = 0; is_all(std::from_chars(begin, end, real), end)) {
      return decltype(Setting::value)(real);
    }
    return malformed("a value is a \"text\", a number, true or false");
  }
  static bool is_all(std::from_chars_result result, const char* end) {
    return result.ec == std::errc() && result.ptr == end;
  }

  std::string_view rest_;
};

/// Enters what the line says into `settings`, or its table into `table`.
Result<void> read_line(std::string_view text, std::size_t number, std::string& table,
                       std::vector<Setting>& settings) {
  Line line(text);
  if (line.at_end()) return {};
  if (line.take('[')) {
    line.skip_space();
    COVEY_ASSIGN(table, line.key());
    if (!line.take(']')) return malformed("behind a table's name there is ] missing");
    table += '.';
  } else {
    COVEY_ASSIGN(const std::string key, line.key());
    if (!line.take('=')) return malformed(fmt::format("behind \"{}\" there is = missing", key));
    line.skip_space();
    COVEY_ASSIGN(auto value, line.value());
    Setting setting{table + key, std::move(value), number};
    const auto before = std::find_if(settings.begin(), settings.end(), [&](const Setting& other) {
      return other.key == setting.key;
    });
    if (before != settings.end()) {
      return malformed(fmt::format("\"{}\" is in line {} already", setting.key, before->line));
    }
    settings.push_back(std::move(setting));
  }
  line.skip_space();
  if (!line.at_end()) return malformed("nothing but a # comment may follow here");
  return {};
}

}  // namespace

Result<SettingsFile> SettingsFile::read(const std::string& path) {
  const std::unique_ptr<std::FILE, decltype([](std::FILE* file) { std::fclose(file); })> file(
      std::fopen(path.c_str(), "re"));
  if (!file) return not_found(path + ": cannot be read");
  std::string text(kMostBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return failed(path + ": cannot be read");
  if (text.size() > kMostBytes) return malformed(path + ": is too large for a file of settings");
  return parse(path, text);
}

Result<SettingsFile> SettingsFile::parse(std::string name, std::string_view text) {
  SettingsFile file;
  file.name_ = std::move(name);
  std::string table;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (const auto read = read_line(line, number, table, file.settings_); !read.ok()) {
      return malformed(fmt::format("{}:{}: {}", file.name_, number, read.error().message));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return file;
}

const Setting* SettingsFile::find(std::string_view key) const {
  const auto found = std::find_if(settings_.begin(), settings_.end(),
                                  [&](const Setting& setting) { return setting.key == key; });
  return found == settings_.end() ? nullptr : &*found;
}

Error SettingsFile::wrong(const Setting& setting, std::string_view problem) const {
  return invalid_argument(
      fmt::format("{}:{}: \"{}\" {}", name_, setting.line, setting.key, problem));
}

Error SettingsFile::missing(std::string_view key) const {
  return invalid_argument(fmt::format("{}: the key \"{}\" is missing", name_, key));
}

}  // namespace covey
