#include <catch2/catch.hpp>
#include <covey/models/data_set.hpp>
#include <string>

#include "data_directory.hpp"

namespace covey::models {
namespace {

RunConfig csv_config(const std::string& path) {
  RunConfig config;
  config.data.source = "csv";
  config.data.path = path;
  config.data.test_fraction = 0;
  return config;
}

Error error_of(const RunConfig& config, const std::string& data_directory) {
  const auto data = load_data(config, data_directory);
  REQUIRE_FALSE(data.ok());
  return data.error();
}

}  // namespace

TEST_CASE("the synthetic set has as many devices as the partition has clients") {
  RunConfig config;
  config.partition.clients = 7;
  const auto data = load_data(config, "");
  REQUIRE(data.ok());
  CHECK(data->owners.size() == 7);
}

TEST_CASE("a relative path is looked up below the data directory first") {
  const test::ScratchDirectory directory;
  directory.write("tables/a.csv", "x,label\n1,0\n2,0\n");
  const auto data = load_data(csv_config("tables/a.csv"), directory.path());
  REQUIRE(data.ok());
  CHECK(data->train.size() == 2);
}

TEST_CASE("a path is taken as given where the data directory has none") {
  const test::ScratchDirectory directory;
  const test::ScratchDirectory other;
  const std::string path = directory.write("a.csv", "x,label\n1,0\n");
  CHECK(load_data(csv_config(path), other.path()).ok());
  CHECK(load_data(csv_config(path), "").ok());
}

TEST_CASE("a path that does not exist is named with every place looked at") {
  const test::ScratchDirectory directory;
  const Error error = error_of(csv_config("no/a.csv"), directory.path());
  CHECK(error.code == ErrorCode::kNotFound);
  CHECK(error.message == "data.path \"no/a.csv\" does not exist (looked at " + directory.path() +
                             "/no/a.csv, no/a.csv); name the folder it is in with --data or "
                             "COVEY_DATA");
}

TEST_CASE("MNIST without a path and without a data directory says what to do") {
  RunConfig config;
  config.data.source = "mnist";
  const Error error = error_of(config, "");
  CHECK(error.code == ErrorCode::kNotFound);
  CHECK_THAT(error.message, Catch::Contains("--data") && Catch::Contains("COVEY_DATA"));
}

TEST_CASE("MNIST in a data directory without it names the files and the places") {
  const test::ScratchDirectory directory;
  RunConfig config;
  config.data.source = "mnist";
  CHECK_THAT(error_of(config, directory.path()).message,
             Catch::Contains("train-images-idx3-ubyte") && Catch::Contains(directory.path()));
}

TEST_CASE("LEAF data are read from the directory that data.path names") {
  const test::ScratchDirectory directory;
  directory.write("set/train/a.json", R"({"users": ["u"], "num_samples": [1],
    "user_data": {"u": {"x": [[1]], "y": [0]}}})");
  RunConfig config = csv_config("set");
  config.data.source = "leaf";
  const auto data = load_data(config, directory.path());
  REQUIRE(data.ok());
  CHECK(data->owner_names == std::vector<std::string>{"u"});
}

TEST_CASE("sources that do not exist and sources without a path are refused") {
  RunConfig config;
  config.data.source = "parquet";
  CHECK_THAT(error_of(config, "").message, Catch::Contains("\"parquet\" is unknown"));
  config.data.source = "leaf";
  CHECK_THAT(error_of(config, "").message, Catch::Contains("needs data.path"));
}

}  // namespace covey::models
