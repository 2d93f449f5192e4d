#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace covey::models {
namespace {

constexpr std::uint16_t kBegin = 256;  // after the 256 bytes
constexpr std::uint16_t kEnd = 257;
constexpr std::uint32_t kSymbols = 258;
// A longer line that ends in a colon is prose. ("Ghost of Prince Edward" has 22.)
constexpr std::size_t kLongestRole = 64;

/// What one role says in the whole text, speech after speech.
struct Role {
  std::string name;
  std::string text;
};

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path + ": cannot be opened");
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return failed(path + ": cannot be read");
  return text;
}

bool names_a_role(std::string_view line) {
  return line.size() > 1 && line.size() <= kLongestRole + 1 && line.ends_with(':') &&
         line.front() != ' ' && line.front() != '\t';
}

/// Paragraphs: the lines between empty ones, without their line ends.
std::vector<std::vector<std::string_view>> paragraphs_of(std::string_view text) {
  std::vector<std::vector<std::string_view>> paragraphs;
  bool open = false;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) {
      open = false;
      continue;
    }
    if (!open) paragraphs.emplace_back();
    open = true;
    paragraphs.back().push_back(line);
  }
  return paragraphs;
}

/// The roles of a play by first appearance. A text of which not even half the paragraphs start with
/// a name is no play: all of it is one role's, with its empty lines. In a play, a paragraph without
/// a name goes on with the role before it; before the first role it is a title page, nobody's.
std::vector<Role> roles_of(const std::string& text, const std::string& file_name) {
  const auto paragraphs = paragraphs_of(text);
  const auto named = std::ranges::count_if(
      paragraphs, [](const auto& paragraph) { return names_a_role(paragraph.front()); });
  if (2 * static_cast<std::size_t>(named) < paragraphs.size() || named == 0) {
    return {{file_name, text}};
  }
  std::vector<Role> roles;
  std::map<std::string_view, std::size_t> numbers;
  std::size_t speaking = 0;
  for (const auto& paragraph : paragraphs) {
    const bool has_name = names_a_role(paragraph.front());
    if (has_name) {
      const std::string_view name = paragraph.front().substr(0, paragraph.front().size() - 1);
      const auto [at, is_new] = numbers.try_emplace(name, roles.size());
      if (is_new) roles.push_back({std::string(name), {}});
      speaking = at->second;
    } else if (roles.empty()) {
      continue;
    }
    for (std::size_t i = has_name ? 1 : 0; i < paragraph.size(); ++i) {
      roles[speaking].text.append(paragraph[i]).push_back('\n');
    }
  }
  std::erase_if(roles, [](const Role& role) { return role.text.empty(); });
  return roles;
}

/// Sequences of `steps` tokens, each step's label the token that follows it.
class Sequences {
 public:
  explicit Sequences(std::uint32_t steps) : steps_(steps) {}

  /// Cuts `text`, which comes after the symbol `before`, into sequences and ends it with kEnd; what
  /// is left of the last sequence has no labels. Returns their numbers.
  std::vector<std::uint32_t> add(std::uint16_t before, std::string_view text) {
    const auto first = static_cast<std::uint32_t>(tokens_.size() / steps_);
    std::uint16_t previous = before;
    for (const char c : text) {
      tokens_.push_back(previous);
      previous = static_cast<unsigned char>(c);
      labels_.push_back(previous);
    }
    tokens_.push_back(previous);
    labels_.push_back(kEnd);
    while (tokens_.size() % steps_ != 0) {
      tokens_.push_back(kEnd);
      labels_.push_back(kNoLabel);
    }
    std::vector<std::uint32_t> numbers(tokens_.size() / steps_ - first);
    for (std::uint32_t i = 0; i < numbers.size(); ++i) numbers[i] = first + i;
    return numbers;
  }

  Result<DataSet> finish() && {
    return DataSet::from_tokens(steps_, std::move(tokens_), std::move(labels_), kSymbols);
  }

 private:
  std::uint32_t steps_;
  std::vector<std::uint16_t> tokens_;
  std::vector<std::int32_t> labels_;
};

/// Characters held out at the end: at least one where the fraction is positive, never all.
std::size_t held_out(std::size_t characters, double test_fraction) {
  const double wanted = test_fraction * static_cast<double>(characters);
  const auto least = static_cast<std::size_t>(test_fraction > 0 ? 1 : 0);
  return std::min(std::max(static_cast<std::size_t>(std::llround(wanted)), least), characters - 1);
}

}  // namespace

Result<FederatedData> load_text(const std::string& path, const DataConfig& config) {
  if (config.steps == 0)
    return invalid_argument("data.steps = 0: a sequence has at least one step");
  COVEY_ASSIGN(const std::string text, read_text(path));
  if (text.empty()) return malformed(path + ": is empty, a text was expected");
  const std::vector<Role> roles = roles_of(text, std::filesystem::path(path).filename().string());
  if (roles.empty()) return malformed(path + ": its roles are named, but say nothing");
  FederatedData data;
  Sequences train(config.steps);
  Sequences test(config.steps);
  for (const Role& role : roles) {
    const std::size_t cut = role.text.size() - held_out(role.text.size(), config.test_fraction);
    const std::string_view said = role.text;
    Shard& owner = data.owners.emplace_back();
    owner.train = train.add(kBegin, said.substr(0, cut));
    if (cut < said.size()) {
      owner.test = test.add(static_cast<unsigned char>(said[cut - 1]), said.substr(cut));
    }
    data.owner_names.push_back(role.name);
  }
  const auto named = [&](const Error& error) { return with_context(path, error); };
  auto training = std::move(train).finish();
  if (!training.ok()) return named(training.error());
  auto testing = std::move(test).finish();
  if (!testing.ok()) return named(testing.error());
  data.train = std::move(*training);
  data.test = std::move(*testing);
  return data;
}

}  // namespace covey::models
