#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <cstdint>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "data/synthetic_kernels.hpp"

namespace covey::models {
namespace {

constexpr std::uint64_t kSeed = 20;

struct Examples {
  std::vector<float> features;
  std::vector<std::int32_t> labels;
  bool operator==(const Examples&) const = default;
};

Examples examples_of(const DataSet& set, const std::vector<std::uint32_t>& indices) {
  Examples examples{std::vector<float>(indices.size() * set.example_size()),
                    std::vector<std::int32_t>(indices.size())};
  set.gather(indices, examples.features, examples.labels);
  return examples;
}

SyntheticSource source_of(const DataConfig& config, std::uint32_t devices) {
  auto source = SyntheticSource::make(config, devices, kSeed);
  if (!source.ok()) FAIL(source.error().message);
  return std::move(source).value();
}

std::string refusal(const DataConfig& config, std::uint32_t devices = 10) {
  const auto source = SyntheticSource::make(config, devices, kSeed);
  return source.ok() ? "(no error)" : source.error().message;
}

RandomStream stream_of(std::uint64_t client) {
  return RandomStream(kSeed, RandomPurpose::kDataGeneration, RoundNumber{3}, ClientId{client});
}

}  // namespace

TEST_CASE("examples generated on demand are bit for bit those of the whole synthetic data set") {
  for (const bool iid : {false, true}) {
    for (const std::uint32_t max_examples : {0u, 57u}) {
      DataConfig config;
      config.iid = iid;
      config.max_examples = max_examples;
      CAPTURE(iid, max_examples, kSeed);
      constexpr std::uint32_t kDevices = 40;
      const auto whole = make_synthetic(config, kDevices, kSeed);
      REQUIRE(whole.ok());
      const SyntheticSource source = source_of(config, kDevices);
      DataSet set;
      std::vector<std::uint32_t> indices;
      for (std::uint32_t k = kDevices; k-- > 0;) {  // in another order than the whole was made in
        const Shard& shard = whole->owners[k];
        source.train(ClientId{k}, set, indices);
        REQUIRE(examples_of(set, indices) == examples_of(whole->train, shard.train));
        CHECK(source.num_train(ClientId{k}) == shard.train.size());
        source.test(ClientId{k}, set, indices);
        REQUIRE(examples_of(set, indices) == examples_of(whole->test, shard.test));
        CHECK(source.num_examples(ClientId{k}) == shard.train.size() + shard.test.size());
      }
    }
  }
}

TEST_CASE("the test set of the first devices is theirs in the whole synthetic data set") {
  const DataConfig config;
  const auto whole = make_synthetic(config, 12, kSeed);
  const auto first = source_of(config, 1'000'000).test_of_first(5, 1'000'000);
  REQUIRE((whole.ok() && first.ok()));
  REQUIRE(first->owners.size() == 5);
  CHECK(first->train.empty());
  CHECK(first->train.example_size() == 60);
  CHECK(first->train.classes() == 10);
  for (std::size_t k = 0; k < 5; ++k) {
    CHECK(examples_of(first->test, first->owners[k].test) ==
          examples_of(whole->test, whole->owners[k].test));
  }
  const auto all = source_of(config, 3).test_of_first(5, 1'000'000);
  REQUIRE(all.ok());
  CHECK(all->owners.size() == 3);
  const std::size_t of_two = first->owners[0].test.size() + first->owners[1].test.size();
  const auto two = source_of(config, 1000).test_of_first(5, of_two);
  REQUIRE(two.ok());
  CHECK(two->owners.size() == 2);
  CHECK(source_of(config, 1000).test_of_first(5, 0)->owners.size() == 1);
}

TEST_CASE("a device's examples may be generated on many threads at once") {
  const SyntheticSource source = source_of(DataConfig{}, 200);
  std::vector<Examples> alone(200), together(200);
  const auto generate = [&](std::vector<Examples>& out, std::uint32_t first, std::uint32_t step) {
    DataSet set;
    std::vector<std::uint32_t> indices;
    for (std::uint32_t k = first; k < 200; k += step) {
      source.train(ClientId{k}, set, indices);
      out[k] = examples_of(set, indices);
    }
  };
  generate(alone, 0, 1);
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t t = 0; t < 4; ++t) threads.emplace_back(generate, std::ref(together), t, 4);
  }
  CHECK(alone == together);
}

TEST_CASE("the last of a million devices is generated without the others") {
  DataConfig config;
  config.max_examples = 300;
  const SyntheticSource source = source_of(config, 1'000'000);
  DataSet set;
  std::vector<std::uint32_t> indices;
  source.train(ClientId{999'999}, set, indices);
  CHECK(set.size() == source.num_train(ClientId{999'999}));
  CHECK(set.size() == indices.size());
  CHECK(std::ranges::all_of(set.labels(), [](auto y) { return y >= 0 && y < 10; }));
}

TEST_CASE("a data set that is filled again keeps its buffers") {
  const SyntheticSource source = source_of(DataConfig{}, 100);
  DataSet set;
  std::vector<std::uint32_t> indices;
  std::uint32_t largest = 0;
  for (std::uint32_t k = 0; k < 100; ++k) {
    if (source.num_examples(ClientId{k}) > source.num_examples(ClientId{largest})) largest = k;
  }
  source.train(ClientId{largest}, set, indices);
  const auto* labels = set.labels().data();
  const auto* positions = indices.data();
  for (std::uint32_t k = 0; k < 100; ++k) {
    source.train(ClientId{k}, set, indices);
    REQUIRE(set.labels().data() == labels);
    REQUIRE(indices.data() == positions);
  }
}

TEST_CASE("normal draws made many at a time are those of the stream, to two ulps") {
  for (const std::uint64_t client : {0ull, 7ull, 0x123456789abcull}) {
    RandomStream one_by_one = stream_of(client);
    // Across blocks of any length that the kernel works in, and not at its end.
    std::vector<double> draws(100'002);
    draw_normals(stream_of(client).blocks(), draws);
    double farthest = 0;
    for (const double draw : draws) {
      const double expected = one_by_one.normal();
      farthest = std::max(farthest, std::abs(draw - expected) / std::abs(expected));
    }
    CAPTURE(client);
    CHECK(farthest <= 2 * 0x1p-52);
  }
}

TEST_CASE("examples drawn alone are those drawn among others") {
  SyntheticModel model;
  RandomStream random = stream_of(1);
  for (auto& row : model.weight) {
    for (std::size_t c = 0; c < kSyntheticClasses; ++c) row[c] = random.normal();
  }
  model.deviation.fill(1);
  std::vector<std::uint32_t> rows(37);
  std::iota(rows.begin(), rows.end(), 5u);
  Examples together{std::vector<float>(rows.size() * kSyntheticFeatures),
                    std::vector<std::int32_t>(rows.size())};
  draw_examples(model, stream_of(2).blocks(), rows, together.features, together.labels);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Examples alone{std::vector<float>(kSyntheticFeatures), std::vector<std::int32_t>(1)};
    draw_examples(model, stream_of(2).blocks(), std::span(rows).subspan(i, 1), alone.features,
                  alone.labels);
    CHECK(alone.labels[0] == together.labels[i]);
    CHECK(std::ranges::equal(
        alone.features,
        std::span(together.features).subspan(i * kSyntheticFeatures, kSyntheticFeatures)));
  }
}

TEST_CASE("sizes and spreads that no memory holds are refused by their key") {
  DataConfig config;
  config.size_mean = 30;
  CHECK_THAT(refusal(config),
             Catch::Contains("data.size-mean = 30") && Catch::Contains("set data.max-examples"));
  config.max_examples = 1000;
  CHECK(refusal(config) == "(no error)");
  config.max_examples = 1u << 31;
  CHECK_THAT(refusal(config), Catch::Contains("data.max-examples = 2147483648"));
  config = {};
  config.beta = 1e38;
  CHECK_THAT(refusal(config), Catch::Contains("data.beta = 1e+38"));
  CHECK_THAT(refusal(DataConfig{}, 0), Catch::Contains("partition.clients"));
}

}  // namespace covey::models
