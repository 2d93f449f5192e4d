#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/simulation/partition.hpp>
#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data_directory.hpp"

namespace covey::simulation {
namespace {

constexpr std::uint64_t kSeed = 3;

/// n examples of one feature with labels 0, 1, ..., classes-1, 0, ...
models::DataSet labelled(std::uint32_t n, std::uint32_t classes) {
  std::vector<std::int32_t> labels(n);
  for (std::uint32_t i = 0; i < n; ++i) labels[i] = static_cast<std::int32_t>(i % classes);
  return models::DataSet::from_floats({1}, std::vector<float>(n), labels, classes).value();
}

models::FederatedData data_of(std::uint32_t train, std::uint32_t test, std::uint32_t classes = 10) {
  return {labelled(train, classes), labelled(test, classes), {}, {}};
}

PartitionConfig config_of(const std::string& scheme, std::uint32_t clients) {
  PartitionConfig config;
  config.scheme = scheme;
  config.clients = clients;
  return config;
}

std::vector<models::Shard> split(const models::FederatedData& data, const PartitionConfig& config,
                                 std::uint64_t seed = kSeed) {
  auto shards = partition(data, config, seed);
  if (!shards.ok()) FAIL(shards.error().message);
  return std::move(shards).value();
}

/// True if every index below n stands in exactly one device's list.
template <typename Member>
bool uses_each_once(const std::vector<models::Shard>& shards, Member member, std::size_t n) {
  std::vector<int> count(n);
  for (const auto& shard : shards) {
    for (const std::uint32_t i : shard.*member) ++count.at(i);
  }
  return std::ranges::all_of(count, [](int c) { return c == 1; });
}

/// Number of examples of each class in a list.
std::vector<std::size_t> label_counts(const models::DataSet& set,
                                      const std::vector<std::uint32_t>& indices) {
  std::vector<std::size_t> counts(set.classes());
  for (const std::uint32_t i : indices) ++counts[static_cast<std::size_t>(set.labels()[i])];
  return counts;
}

bool equal(const std::vector<models::Shard>& a, const std::vector<models::Shard>& b) {
  return std::ranges::equal(a, b, [](const models::Shard& x, const models::Shard& y) {
    return x.train == y.train && x.test == y.test;
  });
}

std::string error_of(const models::FederatedData& data, const PartitionConfig& config) {
  const auto shards = partition(data, config, kSeed);
  return shards.ok() ? "(no error)" : shards.error().message;
}

}  // namespace

TEST_CASE("every scheme uses every training and test example exactly once") {
  const auto data = data_of(5003, 1009);
  for (const char* scheme : {"iid", "shards", "dirichlet", "power-law"}) {
    INFO(scheme);
    const auto shards = split(data, config_of(scheme, 17));
    REQUIRE(shards.size() == 17);
    CHECK(uses_each_once(shards, &models::Shard::train, 5003));
    CHECK(uses_each_once(shards, &models::Shard::test, 1009));
    CHECK(std::ranges::none_of(shards, [](const auto& shard) { return shard.train.empty(); }));
  }
}

TEST_CASE("every scheme depends on the seed and on nothing else") {
  const auto data = data_of(2000, 400);
  for (const char* scheme : {"iid", "shards", "dirichlet", "power-law"}) {
    INFO(scheme);
    const auto config = config_of(scheme, 10);
    CHECK(equal(split(data, config), split(data, config)));
    CHECK_FALSE(equal(split(data, config), split(data, config, kSeed + 1)));
  }
}

TEST_CASE("iid parts are equal to within one example and mixed in label") {
  const auto data = data_of(10007, 103);
  for (const auto& shard : split(data, config_of("iid", 10))) {
    CHECK((shard.train.size() == 1000 || shard.train.size() == 1001));
    CHECK((shard.test.size() == 10 || shard.test.size() == 11));
    // Hypergeometric: mean 100, deviation 9; 5 deviations.
    for (const std::size_t count : label_counts(data.train, shard.train)) {
      CHECK(std::abs(static_cast<double>(count) - 100) < 45);
    }
  }
}

TEST_CASE("shards give a device few labels and all devices the same number of examples") {
  const auto data = data_of(60000, 10000);
  for (const auto& shard : split(data, config_of("shards", 100))) {
    CHECK(shard.train.size() == 600);
    const auto counts = label_counts(data.train, shard.train);
    // 200 shards of 300 of ten labels with 6000 each: no shard straddles two labels.
    CHECK(std::ranges::count_if(counts, [](auto c) { return c > 0; }) <= 2);
    CHECK(std::ranges::all_of(counts, [](auto c) { return c % 300 == 0; }));
  }
}

TEST_CASE("a device is tested on the labels it trains on, in the same shares") {
  const auto data = data_of(60000, 10000);
  auto config = config_of("dirichlet", 20);
  for (const char* scheme : {"shards", "dirichlet", "power-law"}) {
    INFO(scheme);
    config.scheme = scheme;
    for (const auto& shard : split(data, config)) {
      const auto train = label_counts(data.train, shard.train);
      const auto test = label_counts(data.test, shard.test);
      for (std::size_t c = 0; c < train.size(); ++c) {
        // 6000 training and 1000 test examples of each class; rounding moves less than one.
        CHECK(std::abs(static_cast<double>(test[c]) - static_cast<double>(train[c]) / 6) < 1);
      }
    }
  }
}

TEST_CASE("a class that nobody trains on is tested on by nobody") {
  models::FederatedData data{labelled(100, 2), labelled(90, 3), {}, {}};
  std::size_t tested = 0;
  for (const auto& shard : split(data, config_of("power-law", 4))) {
    tested += shard.test.size();
    CHECK(label_counts(data.test, shard.test)[2] == 0);
  }
  CHECK(tested == 60);
}

TEST_CASE("a small Dirichlet concentration concentrates classes, a large one evens them out") {
  INFO("seed " << kSeed);
  const auto data = data_of(20000, 0);
  const auto largest_share = [&](double concentration) {
    auto config = config_of("dirichlet", 20);
    config.concentration = concentration;
    double sum = 0;
    for (const auto& shard : split(data, config)) {
      const auto counts = label_counts(data.train, shard.train);
      sum += static_cast<double>(*std::ranges::max_element(counts)) /
             static_cast<double>(shard.train.size());
    }
    return sum / 20;  // mean over devices of the largest label's share
  };
  CHECK(largest_share(0.1) > 0.5);
  CHECK(largest_share(1000) < 0.13);  // of 10 labels: 0.1 and a little
}

TEST_CASE("a class's shares have the variance of the Dirichlet distribution") {
  INFO("seed " << kSeed);
  // 200 classes of 1000 examples over 4 devices: shares are Beta(a, 3a), with variance
  // (1/4)(3/4)/(4a + 1) = .0625 for a = .5.
  const auto data = data_of(200000, 0, 200);
  auto config = config_of("dirichlet", 4);
  double sum = 0, squares = 0;
  for (const auto& shard : split(data, config)) {
    for (const std::size_t count : label_counts(data.train, shard.train)) {
      const double share = static_cast<double>(count) / 1000;
      sum += share;
      squares += share * share;
    }
  }
  const double variance = squares / 800 - (sum / 800) * (sum / 800);
  CHECK(sum / 800 == Approx(0.25));
  CHECK(variance == Approx(0.0625).epsilon(0.25));  // some 4 deviations of 600 independent shares
}

TEST_CASE("power-law sizes are proportional to rank^-exponent") {
  const auto data = data_of(60000, 0);
  auto config = config_of("power-law", 100);
  config.exponent = 1.5;
  const auto shards = split(data, config);
  double sum = 0;
  for (int rank = 1; rank <= 100; ++rank) sum += std::pow(rank, -1.5);
  for (int rank = 1; rank <= 100; ++rank) {
    const double expected = 60000 * std::pow(rank, -1.5) / sum;
    const auto size = static_cast<double>(shards[static_cast<std::size_t>(rank - 1)].train.size());
    CHECK(std::abs(size - expected) <= 1);
  }
}

TEST_CASE("a steep power law leaves every device one example") {
  auto config = config_of("power-law", 50);
  config.exponent = 20;
  const auto shards = split(data_of(60, 0), config);
  CHECK(uses_each_once(shards, &models::Shard::train, 60));
  CHECK(shards[0].train.size() == 11);
  for (std::size_t k = 1; k < 50; ++k) CHECK(shards[k].train.size() == 1);
}

TEST_CASE("a power law of exponent 0 gives equal sizes") {
  auto config = config_of("power-law", 7);
  config.exponent = 0;
  for (const auto& shard : split(data_of(700, 0), config)) CHECK(shard.train.size() == 100);
}

TEST_CASE("the natural partition keeps the owners, all or the first ones") {
  auto data = data_of(6, 3);
  data.owners = {{{0, 1}, {0}}, {{2}, {}}, {{3, 4, 5}, {1, 2}}};
  data.owner_names = {"a", "b", "c"};
  const auto all = split(data, config_of("natural", 0));
  CHECK(equal(all, data.owners));
  const auto two = split(data, config_of("natural", 2));
  CHECK(equal(two, {data.owners[0], data.owners[1]}));
  CHECK(error_of(data, config_of("natural", 4)) ==
        "partition.clients = 4, but the data has 3 owners; 0 takes them all");
  data.owners[1].train.clear();
  CHECK(error_of(data, config_of("natural", 0)) ==
        "partition.scheme \"natural\": owner \"b\" has no training example (partition.empty = "
        "\"keep\" leaves such owners out, \"move\" gives them one)");
  CHECK_THAT(error_of(data_of(6, 3), config_of("natural", 0)),
             Catch::Contains("does not say who owns what"));
}

TEST_CASE("schemes that cannot give every device an example are refused") {
  CHECK(error_of(data_of(9, 0), config_of("iid", 10)) ==
        "partition \"iid\": 9 training examples do not fill 10 devices");
  CHECK(error_of(data_of(19, 0), config_of("shards", 10)) ==
        "partition \"shards\": 19 training examples do not fill 20 shards (10 clients, 2 shards "
        "each)");
  auto config = config_of("dirichlet", 10);
  config.concentration = 1e-300;  // whole classes to one device each: 2 of 10 devices at most
  CHECK_THAT(error_of(data_of(100, 0, 2), config), Catch::Contains("without an example"));
  CHECK_THAT(error_of(data_of(9, 0), config_of("iid", 0)), Catch::Contains("number of devices"));
  CHECK_THAT(error_of(data_of(9, 0), config_of("sorted", 1)), Catch::Contains("is unknown"));
}

TEST_CASE("partition parameters that make no sense are refused") {
  auto config = config_of("dirichlet", 2);
  for (const double bad : {0.0, -1.0, 1e9, std::nan("")}) {
    config.concentration = bad;
    CHECK_THAT(error_of(data_of(9, 0), config), Catch::Contains("partition.concentration"));
  }
  config = config_of("power-law", 2);
  for (const double bad : {-1.0, 1e9, std::nan("")}) {
    config.exponent = bad;
    CHECK_THAT(error_of(data_of(9, 0), config), Catch::Contains("partition.exponent"));
  }
}

TEST_CASE("MNIST's 200 shards of 300 give 100 devices two labels mostly") {
  const auto directory = test::data_directory();
  if (!directory) return test::print_skipped("MNIST's 200 shards of 300");
  const auto data = models::load_mnist(*directory);
  REQUIRE(data.ok());
  int at_most_two = 0;
  for (const auto& shard : split(*data, config_of("shards", 100))) {
    CHECK(shard.train.size() == 600);
    const auto counts = label_counts(data->train, shard.train);
    const auto labels = std::ranges::count_if(counts, [](auto c) { return c > 0; });
    CHECK(labels <= 4);  // a shard holds two labels at most: no label has fewer than 5421 examples
    at_most_two += labels <= 2 ? 1 : 0;
  }
  CHECK(at_most_two >= 80);  // 9 of the 200 shards straddle two labels
}

TEST_CASE("sequences are divided by number, and not by labels they do not have") {
  const auto sequences = [](std::uint32_t n) {
    return models::DataSet::from_tokens(3, std::vector<std::uint16_t>(3 * n),
                                        std::vector<std::int32_t>(3 * n, models::kNoLabel), 5)
        .value();
  };
  const models::FederatedData data{sequences(1003), sequences(101), {}, {}};
  for (const char* scheme : {"iid", "power-law"}) {
    INFO(scheme);
    const auto shards = split(data, config_of(scheme, 17));
    CHECK(uses_each_once(shards, &models::Shard::train, 1003));
    CHECK(uses_each_once(shards, &models::Shard::test, 101));
    CHECK(equal(shards, split(data, config_of(scheme, 17))));
  }
  for (const char* scheme : {"shards", "dirichlet"}) {
    CHECK(error_of(data, config_of(scheme, 17)) ==
          "partition.scheme \"" + std::string(scheme) +
              "\" divides examples by their label; sequences have one for each step (iid, "
              "power-law and natural work)");
  }
}

// ---- devices without examples (partition.empty)

std::size_t num_empty(const std::vector<models::Shard>& shards) {
  return static_cast<std::size_t>(
      std::ranges::count_if(shards, [](const auto& shard) { return shard.train.empty(); }));
}

PartitionConfig with_empty(PartitionConfig config, const std::string& empty) {
  config.empty = empty;
  return config;
}

TEST_CASE("kept empty devices stay empty and the others share every example") {
  for (const std::string scheme : {"iid", "power-law", "shards"}) {
    CAPTURE(scheme);
    const auto data = data_of(30, 30);
    const auto config = config_of(scheme, 100);
    CHECK_THAT(error_of(data, config), Catch::Contains("30 training examples do not fill"));
    const auto shards = split(data, with_empty(config, "keep"));
    REQUIRE(shards.size() == 100);
    CHECK(num_empty(shards) >= 70);
    CHECK(num_empty(shards) < 100);
    CHECK(uses_each_once(shards, &models::Shard::train, 30));
  }
}

TEST_CASE("a small Dirichlet concentration may leave devices empty where that is allowed") {
  const auto data = data_of(2000, 100);
  PartitionConfig config = config_of("dirichlet", 100);
  config.concentration = 0.01;
  CHECK_THAT(error_of(data, config), Catch::Contains("partition.empty = \"keep\" or \"move\""));
  const auto kept = split(data, with_empty(config, "keep"));
  CHECK(num_empty(kept) > 10);
  const auto moved = split(data, with_empty(config, "move"));
  CHECK(num_empty(moved) == 0);
  CHECK(uses_each_once(moved, &models::Shard::train, 2000));
  // Who had examples before has lost only what was moved.
  for (std::size_t k = 0; k < 100; ++k) {
    CAPTURE(k);
    CHECK(moved[k].train.size() <= std::max<std::size_t>(kept[k].train.size(), 1));
  }
}

TEST_CASE("a moved example comes from the device that has most") {
  models::FederatedData data = data_of(9, 0);
  data.owners = {{{0, 1, 2}, {}}, {{}, {}}, {{3, 4, 5, 6, 7, 8}, {}}, {{}, {}}};
  data.owner_names = {"a", "b", "c", "d"};
  const auto config = config_of("natural", 0);
  CHECK_THAT(error_of(data, config), Catch::Contains("owner \"b\" has no training example"));
  CHECK(num_empty(split(data, with_empty(config, "keep"))) == 2);
  const auto moved = split(data, with_empty(config, "move"));
  CHECK(moved[0].train == std::vector<std::uint32_t>{0, 1, 2});
  CHECK(moved[1].train == std::vector<std::uint32_t>{8});
  CHECK(moved[2].train == std::vector<std::uint32_t>{3, 4, 5, 6});
  CHECK(moved[3].train == std::vector<std::uint32_t>{7});
}

TEST_CASE("examples cannot be moved where there are fewer than devices") {
  CHECK_THAT(error_of(data_of(30, 30), with_empty(config_of("iid", 31), "move")),
             Catch::Contains("30 training examples do not fill 31 devices"));
  models::FederatedData data = data_of(1, 0);
  data.owners = {{{0}, {}}, {{}, {}}};
  CHECK_THAT(error_of(data, with_empty(config_of("natural", 0), "move")),
             Catch::Contains("fewer training examples than devices (2)"));
}

TEST_CASE("where no device is empty, partition.empty changes nothing") {
  const auto data = data_of(1000, 100);
  for (const std::string scheme : {"iid", "power-law", "shards", "dirichlet"}) {
    CAPTURE(scheme);
    const auto config = config_of(scheme, 10);
    const auto refused = split(data, config);
    CHECK(equal(refused, split(data, with_empty(config, "keep"))));
    CHECK(equal(refused, split(data, with_empty(config, "move"))));
  }
}

}  // namespace covey::simulation
