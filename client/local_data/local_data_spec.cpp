#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <covey/client/local_data_spec.hpp>
#include <filesystem>
#include <limits>
#include <utility>

#include "local_data/file_data.hpp"
#include "local_data/inbox.hpp"

namespace covey::client {
namespace {

Error wrong(std::string_view key, std::string_view value, std::string_view wanted) {
  return invalid_argument(
      fmt::format("{}={}: {} was expected (of local data)", key, value, wanted));
}

/// A whole number, with a K, M or G behind it (powers of 1024) if `bytes`.
Result<std::uint64_t> whole_number(std::string_view key, std::string_view value,
                                   bool bytes = false) {
  std::string_view digits = value;
  unsigned shift = 0;
  if (bytes && !digits.empty()) {
    constexpr std::string_view kUnits = "KMG";
    if (const auto unit = kUnits.find(digits.back()); unit != std::string_view::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      digits.remove_suffix(1);
    }
  }
  std::uint64_t number = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool fits = number <= (std::numeric_limits<std::uint64_t>::max() >> shift);
  if (code != std::errc() || end != digits.data() + digits.size() || !fits) {
    return wrong(key, value, bytes ? "a whole number, or one with K, M or G" : "a whole number");
  }
  return number << shift;
}

Result<std::uint64_t> positive(std::string_view key, std::string_view value, bool bytes = false) {
  COVEY_ASSIGN(const std::uint64_t number, whole_number(key, value, bytes));
  if (number == 0) return wrong(key, value, "at least 1");
  return number;
}

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(at, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// "10" or "cat|dog".
Result<void> set_classes(LocalDataSpec& spec, std::string_view value) {
  if (!value.empty() && std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; })) {
    COVEY_ASSIGN(const std::uint64_t number, positive("classes", value));
    if (number > 65536) return wrong("classes", value, "at most 65536");
    spec.num_classes = static_cast<std::uint32_t>(number);
    return {};
  }
  spec.class_names = split(value, '|');
  auto sorted = spec.class_names;
  std::ranges::sort(sorted);
  if (sorted.front().empty() || std::ranges::adjacent_find(sorted) != sorted.end()) {
    return wrong("classes", value, "a number, or different names with | between them");
  }
  spec.num_classes = static_cast<std::uint32_t>(sorted.size());
  return {};
}

Result<void> set_shape(StreamOptions& stream, std::string_view value) {
  stream.shape.clear();
  for (const std::string& extent : split(value, 'x')) {
    COVEY_ASSIGN(const std::uint64_t number, positive("shape", extent));
    if (number > std::numeric_limits<std::uint32_t>::max() || stream.shape.size() == 4) {
      return wrong("shape", value, "up to four extents like 28x28x1");
    }
    stream.shape.push_back(static_cast<std::uint32_t>(number));
  }
  return {};
}

/// One of two words.
Result<bool> second_of(std::string_view key, std::string_view value, std::string_view first,
                       std::string_view second) {
  if (value == first || value == second) return value == second;
  return wrong(key, value, fmt::format("{} or {}", first, second));
}

Result<void> set_stream(StreamOptions& stream, std::string_view key, std::string_view value) {
  if (key == "keep") {
    COVEY_ASSIGN(const bool reservoir, second_of(key, value, "window", "reservoir"));
    stream.keep = reservoir ? StreamOptions::Keep::kReservoir : StreamOptions::Keep::kWindow;
  } else if (key == "element") {
    COVEY_ASSIGN(const bool byte, second_of(key, value, "float", "byte"));
    stream.element = byte ? StreamOptions::Element::kByte : StreamOptions::Element::kFloat;
  } else if (key == "only-new") {
    COVEY_ASSIGN(stream.only_new, second_of(key, value, "no", "yes"));
  } else if (key == "max-examples") {
    COVEY_ASSIGN(stream.max_examples, positive(key, value));
  } else if (key == "min-examples") {
    COVEY_ASSIGN(stream.min_examples, positive(key, value));
  } else if (key == "seed") {
    COVEY_ASSIGN(stream.seed, whole_number(key, value));
  } else if (key == "shape") {
    return set_shape(stream, value);
  } else if (key == "replay") {
    const auto [end, code] =
        std::from_chars(value.data(), value.data() + value.size(), stream.replay);
    const bool all = code == std::errc() && end == value.data() + value.size();
    if (!all || !(stream.replay >= 0 && stream.replay <= 1000)) {
      return wrong(key, value, "old examples for each new one, from 0 to 1000,");
    }
  }
  return {};
}

struct KindName {
  std::string_view name;
  LocalDataSpec::Kind kind;
  std::string_view keys;  ///< that it takes, each between commas
};
using Kind = LocalDataSpec::Kind;
constexpr std::array<KindName, 4> kKinds = {{
    {"csv", Kind::kCsv, ",label,classes,max-bytes,"},
    {"idx", Kind::kIdx, ",classes,max-bytes,"},
    {"directory", Kind::kDirectory, ",label,classes,max-bytes,"},
    {"stream", Kind::kStream,
     ",keep,element,only-new,max-examples,min-examples,seed,shape,replay,label,classes,max-bytes,"},
}};

bool is_key(std::string_view text) {
  return !text.empty() &&
         std::ranges::all_of(text, [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; });
}

/// Takes ",key=value" off the end of `text`; false if there is none (a comma of the path).
bool take_option(std::string_view& text, std::string_view& key, std::string_view& value) {
  const std::size_t comma = text.rfind(',');
  if (comma == std::string_view::npos) return false;
  const std::string_view option = text.substr(comma + 1);
  const std::size_t equals = option.find('=');
  if (equals == std::string_view::npos || !is_key(option.substr(0, equals))) return false;
  key = option.substr(0, equals);
  value = option.substr(equals + 1);
  text = text.substr(0, comma);
  return true;
}

Result<void> set_option(LocalDataSpec& spec, const KindName& kind, std::string_view key,
                        std::string_view value) {
  if (kind.keys.find(fmt::format(",{},", key)) == std::string_view::npos) {
    const auto keys = kind.keys.substr(1, kind.keys.size() - 2);
    return invalid_argument(
        fmt::format("{}={}: local data of kind {} take {}", key, value, kind.name, keys));
  }
  if (key == "label") {
    spec.label = value;
    return {};
  }
  if (key == "classes") return set_classes(spec, value);
  if (key == "max-bytes") {
    COVEY_ASSIGN(spec.max_bytes, positive(key, value, true));
    return {};
  }
  return set_stream(spec.stream, key, value);
}

}  // namespace

Result<LocalDataSpec> parse_local_data(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto kind = std::ranges::find(kKinds, text.substr(0, colon), &KindName::name);
  if (colon == std::string_view::npos || kind == kKinds.end()) {
    return invalid_argument(
        fmt::format("\"{}\" names no local data; csv:FILE, idx:DIRECTORY, directory:DIRECTORY and "
                    "stream:DIRECTORY do, with ,key=value behind",
                    text));
  }
  LocalDataSpec spec;
  spec.kind = kind->kind;
  std::string_view rest = text.substr(colon + 1);
  std::string_view key, value;
  while (take_option(rest, key, value)) COVEY_TRY(set_option(spec, *kind, key, value));
  if (rest.empty()) return invalid_argument(fmt::format("\"{}\": the path is missing", text));
  if (spec.kind == Kind::kIdx && !spec.class_names.empty()) {
    return invalid_argument(
        fmt::format("\"{}\": the labels of idx files are numbers: classes=N", text));
  }
  spec.path = rest;
  return spec;
}

namespace {

Result<std::unique_ptr<LocalData>> open_stream(const LocalDataSpec& spec,
                                               std::function<void(std::string_view)> on_notice) {
  StreamOptions options = spec.stream;
  options.directory = spec.path;
  options.classes = spec.num_classes;
  if (spec.max_bytes > 0) options.max_bytes = spec.max_bytes;
  options.on_notice = on_notice;
  COVEY_ASSIGN(auto stream, ExampleStream::open(std::move(options)));
  if (spec.path.empty()) return std::unique_ptr<LocalData>(std::move(stream));
  InboxOptions inbox{(std::filesystem::path(spec.path) / "inbox").string(), spec.label,
                     spec.class_names};
  return std::unique_ptr<LocalData>(
      std::make_unique<Inbox>(std::move(stream), std::move(inbox), std::move(on_notice)));
}

}  // namespace

Result<std::unique_ptr<LocalData>> open_local_data(
    const LocalDataSpec& spec, std::function<void(std::string_view)> on_notice) {
  if (spec.kind == Kind::kStream) return open_stream(spec, std::move(on_notice));
  auto files = spec.kind == Kind::kCsv   ? csv_file(spec)
               : spec.kind == Kind::kIdx ? idx_files(spec)
                                         : directory_of_files(spec);
  COVEY_TRY(files->files());
  return std::unique_ptr<LocalData>(
      std::make_unique<FileData>(std::move(files), std::move(on_notice)));
}

ExampleStream* stream_of(LocalData& data) {
  if (auto* inbox = dynamic_cast<Inbox*>(&data)) return &inbox->stream();
  return dynamic_cast<ExampleStream*>(&data);
}

}  // namespace covey::client
