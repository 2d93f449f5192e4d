#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/models/data_set.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "data_directory.hpp"

namespace covey::models {
namespace {

constexpr std::int32_t kBegin = 256;
constexpr std::int32_t kEnd = 257;

using Labels = std::vector<std::int32_t>;

DataConfig config_of(std::uint32_t steps, double test_fraction = 0) {
  DataConfig config;
  config.source = "text";
  config.steps = steps;
  config.test_fraction = test_fraction;
  return config;
}

struct Text {
  test::ScratchDirectory directory;

  FederatedData load(const std::string& content, const DataConfig& config) const {
    auto data = load_text(directory.write("play.txt", content), config);
    if (!data.ok()) FAIL(data.error().message);
    return std::move(*data);
  }
};

/// One sequence: its tokens and its labels.
struct Sequence {
  Labels inputs;
  Labels labels;
};

Sequence sequence(const DataSet& set, std::uint32_t index) {
  std::vector<float> features(set.example_size());
  Sequence found;
  found.labels.resize(set.labels_per_example());
  set.gather(std::vector<std::uint32_t>{index}, features, found.labels);
  for (const float token : features) found.inputs.push_back(static_cast<std::int32_t>(token));
  return found;
}

/// What the labels of these sequences spell, '|' for the end.
std::string spelt(const DataSet& set, const std::vector<std::uint32_t>& indices) {
  std::string text;
  for (const std::uint32_t index : indices) {
    for (const std::int32_t label : sequence(set, index).labels) {
      if (label == kEnd) text += '|';
      if (label >= 0 && label < 256) text += static_cast<char>(label);
    }
  }
  return text;
}

constexpr const char* kPlay =
    "ROMEO:\nah me\nalas\n\nFIRST NURSE:\nho\n\nROMEO:\nno\n\nMUTE:\n\nROMEO:\nso\n";

}  // namespace

TEST_CASE("each step of a text is to predict the next character, the last one the end") {
  const Text text;
  const auto data = text.load("X:\nabcd\n", config_of(4));
  REQUIRE(data.train.size() == 2);
  CHECK(data.train.shape() == std::vector<std::uint32_t>{4});
  CHECK(data.train.vocabulary() == 258);
  CHECK(data.train.classes() == 258);
  CHECK(data.train.labels_per_example() == 4);
  const auto first = sequence(data.train, 0);
  CHECK(first.inputs == Labels{kBegin, 'a', 'b', 'c'});
  CHECK(first.labels == Labels{'a', 'b', 'c', 'd'});
  const auto last = sequence(data.train, 1);
  CHECK(last.inputs == Labels{'d', '\n', kEnd, kEnd});
  CHECK(last.labels == Labels{'\n', kEnd, kNoLabel, kNoLabel});
}

TEST_CASE("the speeches of a role are one text, in the play's order") {
  const Text text;
  const auto data = text.load(kPlay, config_of(5));
  CHECK(data.owner_names == std::vector<std::string>{"ROMEO", "FIRST NURSE"});  // MUTE says nothing
  REQUIRE(data.owners.size() == 2);
  CHECK(spelt(data.train, data.owners[0].train) == "ah me\nalas\nno\nso\n|");
  CHECK(spelt(data.train, data.owners[1].train) == "ho\n|");
  CHECK(data.test.empty());
}

TEST_CASE("lines that end as on Windows are the same text") {
  const Text text;
  std::string windows;
  for (const char* c = kPlay; *c != '\0'; ++c) {
    if (*c == '\n') windows += '\r';
    windows += *c;
  }
  const auto data = text.load(windows, config_of(5));
  CHECK(spelt(data.train, data.owners[0].train) == "ah me\nalas\nno\nso\n|");
}

TEST_CASE("the test set of a role is the last part of what it says, told what came before") {
  const Text text;
  // 10 characters with the line's end: 3 are held out.
  const auto data = text.load("X:\nabcdefghi\n", config_of(8, 0.3));
  REQUIRE(data.owners.size() == 1);
  CHECK(spelt(data.train, data.owners[0].train) == "abcdefg|");
  CHECK(spelt(data.test, data.owners[0].test) == "hi\n|");
  CHECK(sequence(data.test, data.owners[0].test.front()).inputs.front() == 'g');
}

TEST_CASE("however much is held out, a role keeps a character to train on") {
  const Text text;
  const auto data = text.load("X:\na\n", config_of(8, 0.9));
  CHECK(spelt(data.train, data.owners[0].train) == "a|");
  const auto single = text.load("z", config_of(8, 0.9));
  CHECK(spelt(single.train, single.owners[0].train) == "z|");
  CHECK(single.owners[0].test.empty());
}

TEST_CASE("a text without roles belongs to one owner, unchanged") {
  const Text text;
  const std::string prose = "Notes:\none\n\ntwo\n\n  three:\n\nfour";
  const auto data = text.load(prose, config_of(7));
  CHECK(data.owner_names == std::vector<std::string>{"play.txt"});
  CHECK(spelt(data.train, data.owners[0].train) == prose + "|");
}

TEST_CASE("in a play, paragraphs without a name go on with the role before them") {
  const Text text;
  const auto data = text.load("A TITLE\n\nX:\na\n\nb\n\nY:\nc\n\nX:\nd\n", config_of(9));
  CHECK(data.owner_names == std::vector<std::string>{"X", "Y"});
  CHECK(spelt(data.train, data.owners[0].train) == "a\nb\nd\n|");
  CHECK(spelt(data.train, data.owners[1].train) == "c\n|");
}

TEST_CASE("bytes above 127 are symbols of their own") {
  const Text text;
  const auto data = text.load("\xc3\xbc", config_of(3));
  CHECK(sequence(data.train, 0).labels == Labels{0xc3, 0xbc, kEnd});
}

TEST_CASE("a text that is not there, is empty or says nothing is refused with its path") {
  const Text text;
  const auto error = [&](const std::string& path) {
    const auto data = load_text(path, config_of(8));
    REQUIRE_FALSE(data.ok());
    CHECK_THAT(data.error().message, Catch::StartsWith(path));
    return data.error();
  };
  CHECK(error("/nowhere/a.txt").code == ErrorCode::kNotFound);
  CHECK(error(text.directory.write("empty.txt", "")).code == ErrorCode::kMalformed);
  CHECK(error(text.directory.write("mute.txt", "X:\n\nY:\n")).code == ErrorCode::kMalformed);
}

TEST_CASE("a directory of a text is its input.txt, and no path the plays of Shakespeare") {
  const test::ScratchDirectory directory;
  directory.write("shakespeare/input.txt", kPlay);
  directory.write("empty/other.txt", "x");
  RunConfig config;
  config.data = config_of(5);
  const auto plays = load_data(config, directory.path());
  REQUIRE(plays.ok());
  CHECK(plays->owner_names.size() == 2);
  config.data.path = "shakespeare";
  CHECK(load_data(config, directory.path()).ok());
  config.data.path = "empty";
  const auto missing = load_data(config, directory.path());
  REQUIRE_FALSE(missing.ok());
  CHECK_THAT(missing.error().message, Catch::Contains("without input.txt"));
  config.data.path.clear();
  const auto nowhere = load_data(config, "");
  REQUIRE_FALSE(nowhere.ok());
  CHECK_THAT(nowhere.error().message, Catch::Contains("--data") && Catch::Contains("COVEY_DATA"));
}

TEST_CASE("the plays of Shakespeare have a role for every name") {
  const auto directory = test::data_directory();
  if (!directory || !std::filesystem::exists(*directory + "/shakespeare/input.txt")) {
    test::print_skipped("the plays of Shakespeare");
    return;
  }
  const auto data = load_text(*directory + "/shakespeare/input.txt", config_of(80, 0.2));
  REQUIRE(data.ok());
  CHECK(data->owners.size() > 100);
  CHECK(data->owner_names.front() == "First Citizen");
  CHECK(std::ranges::none_of(data->owners, [](const Shard& owner) { return owner.train.empty(); }));
  // 80% of about 1.1 million characters, of which names are a tenth, in sequences of 80.
  CHECK(data->train.size() > 8000);
  CHECK(data->test.size() > 2000);
}

}  // namespace covey::models
