#include <catch2/catch.hpp>
#include <covey/models/data_set.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "data_directory.hpp"

namespace covey::models {
namespace {

constexpr std::uint64_t kSeed = 5;

// Two users with two and one example of three features.
constexpr const char* kTrain = R"({"users": ["u1", "u2"], "num_samples": [2, 1], "user_data": {
  "u1": {"x": [[1, 2, 3], [4, 5.5, 6]], "y": [0, 2]}, "u2": {"x": [[7, 8, 9]], "y": [1.0]}}})";

DataConfig config_of(double test_fraction = 0) {
  DataConfig config;
  config.source = "leaf";
  config.test_fraction = test_fraction;
  return config;
}

std::string error_of(const std::string& text) {
  const test::ScratchDirectory directory;
  const std::string path = directory.write("train/a.json", text);
  const auto data = load_leaf(directory.path(), config_of(), kSeed);
  if (data.ok()) return "(no error)";
  const std::string& message = data.error().message;
  return message.starts_with(path) ? message.substr(path.size()) : message;
}

/// A file of one user, "u", with this x and y.
std::string one_user(const std::string& x, const std::string& y, const std::string& count = "1") {
  return R"({"users": ["u"], "num_samples": [)" + count + R"(], "user_data": {"u": {"x": )" + x +
         R"(, "y": )" + y + "}}}";
}

std::vector<float> features_of(const DataSet& set, const std::vector<std::uint32_t>& indices) {
  std::vector<float> features(indices.size() * set.example_size());
  std::vector<std::int32_t> labels(indices.size());
  set.gather(indices, features, labels);
  return features;
}

}  // namespace

TEST_CASE("LEAF's users own their training and test examples") {
  const test::ScratchDirectory directory;
  directory.write("train/a.json", kTrain);
  directory.write("test/b.json", R"({"users": ["u2", "u3"], "num_samples": [1, 1], "user_data": {
    "u2": {"x": [[1, 1, 1]], "y": [3]}, "u3": {"x": [[2, 2, 2]], "y": [0]}}})");
  const auto data = load_leaf(directory.path(), config_of(0.5), kSeed);
  REQUIRE(data.ok());
  CHECK(data->owner_names == std::vector<std::string>{"u1", "u2"});
  CHECK(data->train.classes() == 4);  // the largest label of both parts
  CHECK(data->train.size() == 3);     // test files are there: nothing more is held out
  CHECK(features_of(data->train, data->owners[0].train) == std::vector<float>{1, 2, 3, 4, 5.5f, 6});
  CHECK(data->owners[0].test.empty());
  CHECK(features_of(data->test, data->owners[1].test) == std::vector<float>{1, 1, 1});
  CHECK(data->test.size() == 2);  // u3 was held out as a whole: tested on, owned by nobody
}

TEST_CASE("LEAF files without test files are split by test-fraction") {
  const test::ScratchDirectory directory;
  nlohmann::json json{{"users", {"u"}}, {"num_samples", {10}}};
  for (int i = 0; i < 10; ++i) {
    json["user_data"]["u"]["x"].push_back({i, 0});
    json["user_data"]["u"]["y"].push_back(i % 2);
  }
  directory.write("all.json", json.dump());
  const auto data = load_leaf(directory.path(), config_of(0.3), kSeed);
  REQUIRE(data.ok());
  CHECK(data->owners[0].train.size() == 7);
  CHECK(data->owners[0].test.size() == 3);
}

TEST_CASE("users of several LEAF files come in the order of the files' names") {
  const test::ScratchDirectory directory;
  directory.write("train/b.json", R"({"users": ["a"], "num_samples": [1],
    "user_data": {"a": {"x": [[1, 2, 3]], "y": [0]}}})");
  directory.write("train/a.json", kTrain);
  directory.write("train/notes.txt", "not JSON");
  const auto data = load_leaf(directory.path(), config_of(), kSeed);
  REQUIRE(data.ok());
  CHECK(data->owner_names == std::vector<std::string>{"u1", "u2", "a"});
}

TEST_CASE("one user in two LEAF files is refused naming both") {
  const test::ScratchDirectory directory;
  const std::string first = directory.write("train/a.json", kTrain);
  directory.write("train/b.json", kTrain);
  const auto data = load_leaf(directory.path(), config_of(), kSeed);
  REQUIRE_FALSE(data.ok());
  CHECK_THAT(data.error().message, Catch::Contains("b.json: user \"u1\" was already in " + first));
}

TEST_CASE("text that is not JSON is refused with the place") {
  CHECK_THAT(error_of("{\"users\": [\"u1\""), Catch::StartsWith(": not JSON: "));
  CHECK_THAT(error_of(""), Catch::StartsWith(": not JSON: "));
  CHECK_THAT(error_of("\xff\xfe"), Catch::StartsWith(": not JSON: "));
  CHECK_THAT(error_of(one_user("[[1e999]]", "[0]")), Catch::StartsWith(": not JSON: "));
}

TEST_CASE("JSON nested a million deep neither crashes nor is accepted") {
  CHECK_THAT(error_of(std::string(1000000, '[')), Catch::StartsWith(": not JSON: "));
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  CHECK_THAT(error_of(deep), Catch::StartsWith(": not LEAF: "));
  CHECK_THAT(error_of(one_user("[" + deep + "]", "[0]")),
             Catch::Contains("x has 1 features") || Catch::Contains("x holds array"));
}

TEST_CASE("JSON of another make is refused saying what is missing") {
  for (const char* text :
       {"[]", "7", "null", "{}", R"({"users": {}, "num_samples": [], "user_data": {}})",
        R"({"users": [], "num_samples": 3, "user_data": {}})",
        R"({"users": [], "num_samples": [], "user_data": []})"}) {
    INFO(text);
    CHECK(error_of(text) ==
          ": not LEAF: needs the lists users and num_samples and the object user_data");
  }
}

TEST_CASE("users and counts that do not fit the data are refused by name") {
  CHECK(error_of(R"({"users": ["u"], "num_samples": [], "user_data": {}})") ==
        ": 1 users, but num_samples has 0 entries");
  CHECK(error_of(R"({"users": [7], "num_samples": [1], "user_data": {}})") ==
        ": users[0] is not a string");
  CHECK(error_of(R"({"users": ["u"], "num_samples": [1], "user_data": {}})") ==
        ": user \"u\" is not in user_data");
  CHECK(error_of(R"({"users": ["u"], "num_samples": [1], "user_data": {"u": [1]}})") ==
        ": user \"u\": user_data needs a list x and a list y");
  CHECK(error_of(one_user("[[1]]", "[0]", "2")) ==
        ": user \"u\": num_samples is 2, there are 1 examples");
  CHECK(error_of(one_user("[[1]]", "[0]", "-1")) ==
        ": user \"u\": num_samples is -1, there are 1 examples");
  CHECK(error_of(one_user("[[1]]", "[0]", "\"1\"")) ==
        ": user \"u\": num_samples is string, there are 1 examples");
  CHECK(error_of(one_user("[[1], [2]]", "[0]")) == ": user \"u\": x has 2 examples, y has 1");
}

TEST_CASE("examples that are no flat lists of finite numbers are refused by number") {
  CHECK(error_of(one_user("[\"text\"]", "[0]")) ==
        ": user \"u\": example 0: x is not a list, a flat list of numbers was expected");
  CHECK(error_of(one_user("[[]]", "[0]")) ==
        ": user \"u\": example 0: x is empty, a flat list of numbers was expected");
  CHECK(error_of(one_user("[[1, null]]", "[0]")) ==
        ": user \"u\": example 0: x holds null, not a finite number in single precision");
  CHECK(error_of(one_user("[[1e60]]", "[0]")) ==
        ": user \"u\": example 0: x holds a large number, not a finite number in single precision");
  CHECK(error_of(one_user("[[1, 2], [1]]", "[0, 0]", "2")) ==
        ": user \"u\": example 1: x has 1 features where the first example has 2");
}

TEST_CASE("labels that are no class numbers are refused by number") {
  const auto label = [](const std::string& y) {
    return error_of(one_user("[[1]]", "[" + y + "]"));
  };
  CHECK(label("-1") ==
        ": user \"u\": example 0: y is -1, a class number in [0, 65536) was expected");
  CHECK(label("0.5") ==
        ": user \"u\": example 0: y is 0.5, a class number in [0, 65536) was expected");
  CHECK_THAT(label("65536"), Catch::Contains("y is 65536"));
  CHECK_THAT(label("1e300"), Catch::Contains("y is 1e+300"));
  CHECK_THAT(label("\"cat\""), Catch::Contains("y is string"));
}

TEST_CASE("directories without LEAF files or without examples are refused") {
  const test::ScratchDirectory directory;
  const auto none = load_leaf(directory.path() + "/nowhere", config_of(), kSeed);
  REQUIRE_FALSE(none.ok());
  CHECK(none.error().code == ErrorCode::kNotFound);
  CHECK_THAT(error_of(R"({"users": [], "num_samples": [], "user_data": {}})"),
             Catch::Contains("hold no examples"));
}

}  // namespace covey::models
