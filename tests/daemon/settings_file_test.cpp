#include "client/daemon/settings_file.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace covey;

namespace {

Result<SettingsFile> parse(const std::string& text) { return SettingsFile::parse("f.toml", text); }

std::string error_of(const std::string& text) {
  const auto file = parse(text);
  return file.ok() ? "" : file.error().message;
}

template <typename T>
T value(const SettingsFile& file, const std::string& key) {
  const Setting* setting = file.find(key);
  REQUIRE(setting != nullptr);
  const T* found = std::get_if<T>(&setting->value);
  REQUIRE(found != nullptr);
  return *found;
}

}  // namespace

TEST_CASE("a settings file holds texts, numbers and booleans, in tables or not") {
  const auto file = parse(
      "# a comment\r\n"
      "server = \"a b#c\"  # another\n"
      "\n"
      "  literal='C:\\x'\n"
      "escaped = \"say \\\"\\\\n\\\" \\t\\n\"\n"
      "count = 1_000_000\nnegative = -3\nplus = +4\n"
      "share = 0.25\nsmall = 1e-3\n"
      "yes = true\nno = false\n"
      "dotted.key = 1\n"
      "[certificates]\nca = \"ca.pem\"\n"
      "[ other ]\nca = 2");
  INFO((file.ok() ? "" : file.error().message));
  REQUIRE(file.ok());
  CHECK(value<std::string>(*file, "server") == "a b#c");
  CHECK(value<std::string>(*file, "literal") == "C:\\x");
  CHECK(value<std::string>(*file, "escaped") == "say \"\\n\" \t\n");
  CHECK(value<std::int64_t>(*file, "count") == 1'000'000);
  CHECK(value<std::int64_t>(*file, "negative") == -3);
  CHECK(value<std::int64_t>(*file, "plus") == 4);
  CHECK(value<double>(*file, "share") == 0.25);
  CHECK(value<double>(*file, "small") == 0.001);
  CHECK(value<bool>(*file, "yes"));
  CHECK_FALSE(value<bool>(*file, "no"));
  CHECK(value<std::int64_t>(*file, "dotted.key") == 1);
  CHECK(value<std::string>(*file, "certificates.ca") == "ca.pem");
  CHECK(value<std::int64_t>(*file, "other.ca") == 2);
  CHECK(file->find("certificates.ca")->line == 15);
  CHECK(file->find("ca") == nullptr);
  CHECK(file->wrong(*file->find("count"), "is odd").message == "f.toml:6: \"count\" is odd");
  CHECK(file->missing("x").message == "f.toml: the key \"x\" is missing");
}

TEST_CASE("what a settings file cannot hold is refused by file and line") {
  CHECK(error_of("a = 1\na = 2\n") == "f.toml:2: \"a\" is in line 1 already");
  CHECK(error_of("[t]\na = 1\n[t]\na = 2\n") == "f.toml:4: \"t.a\" is in line 2 already");
  CHECK(error_of("\n= 1\n") == "f.toml:2: here stands no key");
  CHECK(error_of(".a = 1\n") == "f.toml:1: here stands no key");
  CHECK(error_of("a..b = 1\n") == "f.toml:1: here stands no key");
  CHECK(error_of("\"a\" = 1\n") == "f.toml:1: here stands no key");
  CHECK(error_of("a 1\n") == "f.toml:1: behind \"a\" there is = missing");
  CHECK(error_of("[a\n") == "f.toml:1: behind a table's name there is ] missing");
  CHECK(error_of("a = 1 b\n") == "f.toml:1: nothing but a # comment may follow here");
  CHECK(error_of("a = \"b\n") == "f.toml:1: the text has no end: \" is missing");
  CHECK(error_of("a = 'b\n") == "f.toml:1: the text has no end: ' is missing");
  CHECK(error_of("a = \"\\q\"\n") == "f.toml:1: a \\ in a text is written \\\\");
  CHECK(error_of("a = \"\"\"b\"\"\"\n") ==
        "f.toml:1: a text of several lines is not for this file");
  for (const char* wrong : {"", "[1]", "{}", "2020-01-01", "0x10", "1__0", "True", "1.2.3"}) {
    INFO(wrong);
    CHECK(error_of(std::string("a = ") + wrong) ==
          "f.toml:1: a value is a \"text\", a number, true or false");
  }
}

TEST_CASE("every beginning of a settings file is read or refused") {
  const std::string whole = "[a]\nb = \"c\\\"\" # d\ne = 1.5\n'f\n";
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    const auto file = parse(whole.substr(0, length));
    CHECK((file.ok() || file.error().message.starts_with("f.toml:")));
  }
  CHECK(SettingsFile::read("/nonexistent").error().message == "/nonexistent: cannot be read");
  CHECK(SettingsFile::read("/proc/self/exe").error().code == ErrorCode::kMalformed);
}
