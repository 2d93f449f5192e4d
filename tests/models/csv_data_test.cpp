#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/models/data_set.hpp>
#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "data_directory.hpp"

namespace covey::models {
namespace {

constexpr std::uint64_t kSeed = 5;

DataConfig config_of(const std::string& user = "", double test_fraction = 0) {
  DataConfig config;
  config.source = "csv";
  config.user = user;
  config.test_fraction = test_fraction;
  return config;
}

/// One table in a directory of its own.
struct CsvFile {
  explicit CsvFile(const std::string& text) : path(directory.write("table.csv", text)) {}

  Result<FederatedData> load(const DataConfig& config = config_of()) const {
    return load_csv(path, config, kSeed);
  }
  /// The error's text behind the file's name.
  std::string error(const DataConfig& config = config_of()) const {
    const auto data = load(config);
    if (data.ok()) return "(no error)";
    REQUIRE_THAT(data.error().message, Catch::StartsWith(path));
    return data.error().message.substr(path.size());
  }

  test::ScratchDirectory directory;
  std::string path;
};

std::vector<float> features_of(const DataSet& set) {
  std::vector<std::uint32_t> all(set.size());
  std::iota(all.begin(), all.end(), 0u);
  std::vector<float> features(set.size() * set.example_size());
  std::vector<std::int32_t> labels(set.size());
  set.gather(all, features, labels);
  return features;
}

std::vector<std::int32_t> labels_of(const DataSet& set) {
  return {set.labels().begin(), set.labels().end()};
}

}  // namespace

TEST_CASE("a table's columns become features in order, without the label") {
  const CsvFile file("a,label,b\n1,0,2.5\n-3e2,1, +4 \n");
  const auto data = file.load();
  REQUIRE(data.ok());
  CHECK(data->train.shape() == std::vector<std::uint32_t>{2});
  CHECK(features_of(data->train) == std::vector<float>{1, 2.5f, -300, 4});
  CHECK(labels_of(data->train) == std::vector<std::int32_t>{0, 1});
  CHECK(data->owners.empty());
  CHECK(data->test.empty());
}

TEST_CASE("quotes, CRLF, a byte order mark, empty lines and a missing last line end are read") {
  const CsvFile file("\xEF\xBB\xBF\"a\",\"the \"\"label\"\"\"\r\n\r\n\"1\",\"x,\ny\"\r\n2,z");
  DataConfig config = config_of();
  config.label = "the \"label\"";
  const auto data = file.load(config);
  REQUIRE(data.ok());
  CHECK(features_of(data->train) == std::vector<float>{1, 2});
  CHECK(labels_of(data->train) == std::vector<std::int32_t>{0, 1});
}

TEST_CASE("labels that are whole numbers are class numbers, also where some are unused") {
  const auto data = CsvFile("x,label\n0,7\n0,2.0\n").load();
  REQUIRE(data.ok());
  CHECK(labels_of(data->train) == std::vector<std::int32_t>{7, 2});
  CHECK(data->train.classes() == 8);
}

TEST_CASE("labels that are names are numbered alphabetically") {
  const auto data = CsvFile("x,label\n0,dog\n0,cat\n0,dog\n0,ant\n").load();
  REQUIRE(data.ok());
  CHECK(labels_of(data->train) == std::vector<std::int32_t>{2, 1, 2, 0});
  CHECK(data->train.classes() == 3);
}

TEST_CASE("a table without labels gives every column as a feature, and one class") {
  DataConfig config = config_of();
  config.label.clear();
  const auto data = CsvFile("x,label\n0,7\n1,cat\n").load(config);
  REQUIRE_FALSE(data.ok());
  CHECK_THAT(data.error().message, Catch::Contains("\"cat\" is not a number"));
  const auto unlabelled = CsvFile("x,y\n0,7\n1,8\n").load(config);
  REQUIRE(unlabelled.ok());
  CHECK(features_of(unlabelled->train) == std::vector<float>{0, 7, 1, 8});
  CHECK(labels_of(unlabelled->train) == std::vector<std::int32_t>{0, 0});
  CHECK(unlabelled->train.classes() == 1);
}

TEST_CASE("a label that does not fit the others is named") {
  for (const std::string odd : {"-1", "1.5", "cat", "99999999999"}) {
    const auto data = CsvFile("x,label\n0,0\n0,1\n0," + odd + "\n").load();
    REQUIRE_FALSE(data.ok());
    CHECK(data.error().message.find("label \"" + odd + "\"") != std::string::npos);
  }
}

TEST_CASE("a user column makes owners, each with a part held out") {
  std::string text = "who,x,label\n";
  for (int i = 0; i < 30; ++i) {
    text += (i % 3 == 0 ? "bob," : "amy,") + std::to_string(i) + "," + std::to_string(i % 2) + "\n";
  }
  const CsvFile file(text);
  const auto data = file.load(config_of("who", 0.2));
  REQUIRE(data.ok());
  CHECK(data->owner_names == std::vector<std::string>{"bob", "amy"});  // by first appearance
  REQUIRE(data->owners.size() == 2);
  CHECK(data->owners[0].train.size() == 8);
  CHECK(data->owners[0].test.size() == 2);
  CHECK(data->owners[1].train.size() == 16);
  CHECK(data->owners[1].test.size() == 4);
  CHECK(data->train.shape() == std::vector<std::uint32_t>{1});
  const auto train = features_of(data->train);
  for (const std::uint32_t i : data->owners[0].train) {
    CHECK(static_cast<int>(train[i]) % 3 == 0);  // bob's rows
  }
  const auto again = file.load(config_of("who", 0.2));
  CHECK(features_of(again->test) == features_of(data->test));
}

TEST_CASE("without users the test part is drawn from the whole table") {
  std::string text = "x,label\n";
  for (int i = 0; i < 100; ++i) text += std::to_string(i) + ",0\n";
  const auto data = CsvFile(text).load(config_of("", 0.3));
  REQUIRE(data.ok());
  const auto train = features_of(data->train);
  const auto test = features_of(data->test);
  CHECK(test.size() == 30);
  std::set<float> all(train.begin(), train.end());
  all.insert(test.begin(), test.end());
  CHECK(all.size() == 100);
  CHECK(*std::max_element(test.begin(), test.end()) > 50);  // not simply the first or last rows
  CHECK(*std::min_element(test.begin(), test.end()) < 50);
}

TEST_CASE("a bad cell is refused naming file, line and column") {
  CHECK(CsvFile("a,b,label\n1,2,0\n1,abc,0\n").error() ==
        ":3:2: column \"b\": \"abc\" is not a number");
  CHECK(CsvFile("a,b,label\n1,,0\n").error() == ":2:2: column \"b\": the value is missing");
  CHECK(CsvFile("a,label\n1,\n").error() == ":2:2: column \"label\": the value is missing");
  CHECK(CsvFile("a,label\nnan,0\n").error() ==
        ":2:1: column \"a\": nan is not a finite number in single precision");
  CHECK(CsvFile("a,label\n-inf,0\n").error() ==
        ":2:1: column \"a\": -inf is not a finite number in single precision");
  CHECK(CsvFile("a,label\n1e60,0\n").error() ==
        ":2:1: column \"a\": 1e60 is not a finite number in single precision");
  CHECK(CsvFile("a,label\n1e999,0\n").error() == ":2:1: column \"a\": \"1e999\" is not a number");
  CHECK(CsvFile("a,label\n1 2,0\n").error() == ":2:1: column \"a\": \"1 2\" is not a number");
}

TEST_CASE("the line counts line ends inside of quotes and empty lines") {
  CHECK(CsvFile("a,label\n1,\"x\ny\"\n\nz,x\n").error() ==
        ":5:1: column \"a\": \"z\" is not a number");
}

TEST_CASE("rows of another length are refused with both lengths") {
  CHECK(CsvFile("a,b,label\n1,2\n").error() == ":2:3: 2 cells where the header has 3");
  CHECK(CsvFile("a,b,label\n1,2,0,4\n").error() == ":2:4: 4 cells where the header has 3");
}

TEST_CASE("broken quotes are refused where they begin") {
  CHECK(CsvFile("a,label\n1,\"x\n").error() == ":2:2: a quote is not closed");
  CHECK(CsvFile("a,label\n\"1\"2,0\n").error() == ":2:1: text follows a closing quote");
}

TEST_CASE("headers that lack a column, or have it twice, are refused") {
  CHECK(CsvFile("a,b\n1,2\n").error() ==
        ":1: there is no column \"label\" (data.label); there are a, b");
  CHECK(CsvFile("a,label\n1,2\n").error(config_of("who")) ==
        ":1: there is no column \"who\" (data.user); there are a, label");
  CHECK(CsvFile("label,a,label\n1,2,3\n").error() ==
        ":1: two columns are called \"label\" (data.label)");
  CHECK(CsvFile("label\n1\n").error() == ":1: there is no column of features");
  CHECK_THAT(CsvFile("a,label\n1,2\n").error(config_of("label")), Catch::Contains("both name"));
}

TEST_CASE("tables without rows or without anything are refused") {
  CHECK(CsvFile("").error() == ": is empty, a header line was expected");
  CHECK(CsvFile("a,label\n").error() == ": has a header and no rows");
}

TEST_CASE("a label column with too many names is refused") {
  std::string text = "a,label\n";
  for (int i = 0; i <= 65536; ++i) text += "0,n" + std::to_string(i) + "\n";
  CHECK_THAT(CsvFile(text).error(), Catch::Contains("more than 65536 classes"));
}

}  // namespace covey::models
