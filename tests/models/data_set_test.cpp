#include <catch2/catch.hpp>
#include <covey/models/data_set.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace covey::models {
namespace {

using Indices = std::vector<std::uint32_t>;

std::string error_of(const Result<DataSet>& set) {
  return set.ok() ? "(no error)" : set.error().message;
}

}  // namespace

TEST_CASE("a data set hands out the examples asked for, in that order") {
  const auto set = DataSet::from_floats({2}, {0, 1, 10, 11, 20, 21}, {2, 0, 1}, 3);
  REQUIRE(set.ok());
  CHECK(set->size() == 3);
  CHECK(set->example_size() == 2);
  std::vector<float> features(8);
  std::vector<std::int32_t> labels(4);
  set->gather(Indices{2, 0, 2, 1}, features, labels);
  CHECK(features == std::vector<float>{20, 21, 0, 1, 20, 21, 10, 11});
  CHECK(labels == std::vector<std::int32_t>{1, 2, 1, 0});
}

TEST_CASE("bytes are handed out times their scale, for every byte and odd sizes") {
  constexpr std::uint32_t kSize = 37;  // not a multiple of any vector's width
  constexpr float kScale = 1.0f / 255;
  std::vector<std::uint8_t> bytes(std::size_t{256} * kSize);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::uint8_t>(i * 31 + i / 37);
  const auto set = DataSet::from_bytes({kSize}, bytes, kScale, std::vector<std::int32_t>(256), 1);
  REQUIRE(set.ok());
  Indices indices;
  for (std::uint32_t i = 256; i > 0; --i) indices.push_back(i - 1);
  std::vector<float> features(bytes.size());
  std::vector<std::int32_t> labels(256);
  set->gather(indices, features, labels);
  bool equal = true;
  for (std::size_t i = 0; i < 256; ++i) {
    for (std::size_t j = 0; j < kSize; ++j) {
      equal = equal &&
              features[i * kSize + j] == static_cast<float>(bytes[(255 - i) * kSize + j]) * kScale;
    }
  }
  CHECK(equal);
}

TEST_CASE("a shape of several extents has their product of features") {
  const auto set = DataSet::from_bytes({2, 3, 1}, std::vector<std::uint8_t>(12), 1, {0, 0}, 1);
  REQUIRE(set.ok());
  CHECK(set->example_size() == 6);
  CHECK(set->shape() == std::vector<std::uint32_t>{2, 3, 1});
}

TEST_CASE("a data set may be empty, and nothing can be gathered from it") {
  const auto set = DataSet::from_floats({4}, {}, {}, 2);
  REQUIRE(set.ok());
  CHECK(set->empty());
  set->gather({}, {}, {});
}

TEST_CASE("a label outside the classes is refused naming the first bad example") {
  CHECK(error_of(DataSet::from_floats({1}, {0, 0, 0}, {1, 2, -1}, 2)) ==
        "example 1 has label 2, outside [0, 2)");
  CHECK(error_of(DataSet::from_bytes({1}, {0, 0}, 1, {0, -1}, 2)) ==
        "example 1 has label -1, outside [0, 2)");
}

TEST_CASE("features that are not finite are refused naming the example") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(error_of(DataSet::from_floats({2}, {0, 1, 2, nan}, {0, 0}, 1)) ==
        "feature 1 of example 1 is nan, not a finite number");
  CHECK(error_of(DataSet::from_floats({2}, {-infinity, 1, nan, 2}, {0, 0}, 1)) ==
        "feature 0 of example 0 is -inf, not a finite number");
  CHECK_FALSE(DataSet::from_bytes({1}, {0}, nan, {0}, 1).ok());
}

TEST_CASE("counts and shapes that do not fit are refused") {
  CHECK(error_of(DataSet::from_floats({2}, {0, 1, 2}, {0, 0}, 1)) ==
        "3 features where 2 examples of 2 take 4");
  CHECK_FALSE(DataSet::from_floats({0}, {}, {}, 1).ok());
  CHECK_FALSE(DataSet::from_floats({65536, 65536}, {}, {}, 1).ok());
}

TEST_CASE("sequences hand out their tokens as floats and a label for every step") {
  const auto set =
      DataSet::from_tokens(2, {0, 65535, 1, 2, 3, 4}, {5, kNoLabel, 6, 7, 8, 65535}, 1 << 16);
  REQUIRE(set.ok());
  CHECK(set->size() == 3);
  CHECK(set->labels_per_example() == 2);
  CHECK(set->vocabulary() == 65536);
  CHECK(set->shape() == std::vector<std::uint32_t>{2});
  std::vector<float> features(4);
  std::vector<std::int32_t> labels(4);
  set->gather(Indices{2, 0}, features, labels);
  CHECK(features == std::vector<float>{3, 4, 0, 65535});
  CHECK(labels == std::vector<std::int32_t>{8, 65535, 5, kNoLabel});
}

TEST_CASE("tokens and labels outside the vocabulary are refused by step and example") {
  CHECK(error_of(DataSet::from_tokens(2, {0, 1, 2, 3}, {0, 0, 0, 0}, 3)) ==
        "step 1 of example 1 is token 3, outside [0, 3)");
  CHECK(error_of(DataSet::from_tokens(2, {0, 1, 2, 0}, {0, 0, 3, 0}, 3)) ==
        "step 0 of example 1 has label 3, outside [0, 3)");
  CHECK(error_of(DataSet::from_tokens(2, {0, 1}, {0, -2}, 3)) ==
        "step 1 of example 0 has label -2, outside [0, 3)");
}

TEST_CASE("sequences that are not whole, and vocabularies that tokens cannot name, are refused") {
  CHECK(error_of(DataSet::from_tokens(2, {0, 1, 2}, {0, 0, 0}, 3)) ==
        "3 tokens and 3 labels; sequences of 2 steps have 2 of each, one label a step");
  CHECK_FALSE(DataSet::from_tokens(2, {0, 1}, {0}, 3).ok());
  CHECK_FALSE(DataSet::from_tokens(0, {}, {}, 3).ok());
  CHECK_FALSE(DataSet::from_tokens(1, {}, {}, 0).ok());
  CHECK_FALSE(DataSet::from_tokens(1, {}, {}, (1 << 16) + 1).ok());
  const auto none = DataSet::from_tokens(4, {}, {}, 3);
  REQUIRE(none.ok());
  CHECK(none->empty());
  CHECK(none->size() == 0);
}

}  // namespace covey::models
