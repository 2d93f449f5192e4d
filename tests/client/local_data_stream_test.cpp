#include <set>
#include <thread>

#include "local_data_support.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;
using Catch::Matchers::Contains;
using Keep = StreamOptions::Keep;

namespace {

std::unique_ptr<ExampleStream> open_stream(const StreamOptions& options) {
  auto stream = ExampleStream::open(options);
  INFO((stream.ok() ? "" : stream.error().message));
  REQUIRE(stream.ok());
  return std::move(stream).value();
}

std::string refusal(const StreamOptions& options) {
  const auto stream = ExampleStream::open(options);
  return stream.ok() ? "(no error)" : stream.error().message;
}

/// Example i has the features {i, -i} and the label i mod 5.
Result<void> add(ExampleStream& stream, int i) {
  return stream.add(std::vector{static_cast<float>(i), static_cast<float>(-i)}, i % 5);
}

void add_all(ExampleStream& stream, int from, int to) {
  for (int i = from; i < to; ++i) REQUIRE(add(stream, i).ok());
}

/// Which examples there are to train on; checks that each is whole.
std::vector<int> ids(ExampleStream& stream) {
  const auto examples = stream.examples();
  if (!examples.ok()) return {};
  const auto features = features_of(**examples);
  const auto labels = labels_of(**examples);
  CHECK(stream.num_examples() == labels.size());
  std::vector<int> found;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    found.push_back(static_cast<int>(features[2 * i]));
    CHECK(features[2 * i + 1] == -features[2 * i]);
    CHECK(labels[i] == found.back() % 5);
  }
  return found;
}

std::vector<int> numbers(int from, int to) {
  std::vector<int> all(static_cast<std::size_t>(to - from));
  std::iota(all.begin(), all.end(), from);
  return all;
}

}  // namespace

TEST_CASE("a window holds the last examples, in order") {
  const auto stream = open_stream({.max_examples = 10});
  CHECK(stream->num_examples() == 0);
  CHECK_FALSE(stream->examples().ok());
  add_all(*stream, 0, 7);
  CHECK(ids(*stream) == numbers(0, 7));
  add_all(*stream, 7, 25);
  CHECK(ids(*stream) == numbers(15, 25));
  CHECK(stream->seen() == 25);
  CHECK(stream->kept() == 10);
  CHECK((*stream->examples())->classes() == 5);
}

TEST_CASE("a reservoir holds every example that ever came with the same probability") {
  // 200 examples, 20 places: each is held in a tenth of the runs. Over 2000 runs a count is 200
  // with standard deviation sqrt(2000 * 0.1 * 0.9) = 13.4; the sum of squares of 200 standardised
  // counts, which depend on each other only by their sum, is chi-squared of 199 degrees: mean 199,
  // standard deviation 20.
  constexpr int kRuns = 2000, kSeen = 200, kPlaces = 20;
  std::vector<int> held(kSeen);
  for (int seed = 1; seed <= kRuns; ++seed) {
    const auto stream = open_stream({.keep = Keep::kReservoir,
                                     .max_examples = kPlaces,
                                     .seed = static_cast<std::uint64_t>(seed)});
    for (int i = 0; i < kSeen; ++i) {
      const float value = static_cast<float>(i);
      if (!stream->add(std::span(&value, 1), 0).ok()) FAIL("not added");
    }
    const auto features = features_of(**stream->examples());
    REQUIRE(features.size() == kPlaces);
    for (const float value : features) ++held[static_cast<std::size_t>(value)];
  }
  double chi_squared = 0;
  for (const int count : held) {
    const double deviation = (count - 200.0) / 13.4164;
    chi_squared += deviation * deviation;
  }
  INFO("seeds 1.." << kRuns);
  CHECK(chi_squared > 199 - 5 * 20);
  CHECK(chi_squared < 199 + 5 * 20);
}

TEST_CASE("what a stream keeps is bounded in bytes, too") {
  // 2 floats, label and number: 20 bytes.
  const auto stream = open_stream({.max_examples = 1000, .max_bytes = 100});
  add_all(*stream, 0, 50);
  CHECK(ids(*stream) == numbers(45, 50));
  const auto narrow = open_stream({.max_bytes = 19});
  CHECK_THAT(add(*narrow, 1).error().message, Contains("too few"));
  CHECK_THAT(refusal({.shape = {10}, .max_bytes = 19}), Contains("too few"));
}

TEST_CASE("only what is new is trained on, once the update was counted") {
  const auto keep = GENERATE(Keep::kWindow, Keep::kReservoir);
  const auto stream = open_stream({.keep = keep, .max_examples = 10, .only_new = true});
  add_all(*stream, 0, 4);
  const auto first = *stream->examples();
  CHECK(first->size() == 4);
  add_all(*stream, 4, 6);  // while it trains
  CHECK(ids(*stream) == numbers(0, 6));
  count(*stream, first);
  CHECK(ids(*stream) == numbers(4, 6));
  count(*stream, first);  // once more changes nothing
  CHECK(stream->num_examples() == 2);
  count(*stream, *stream->examples());
  CHECK(stream->num_examples() == 0);
  CHECK_FALSE(stream->examples().ok());
  add_all(*stream, 6, 30);  // more than there is room for
  CHECK(ids(*stream) == numbers(20, 30));
}

TEST_CASE("too few new examples are not trained on") {
  const auto stream = open_stream({.only_new = true, .min_examples = 3});
  add_all(*stream, 0, 2);
  CHECK(stream->num_examples() == 0);
  CHECK_THAT(stream->examples().error().message, Contains("2 new") && Contains("3 are wanted"));
  add_all(*stream, 2, 3);
  CHECK(ids(*stream) == numbers(0, 3));
}

TEST_CASE("replay mixes old examples with the new ones") {
  const auto keep = GENERATE(Keep::kWindow, Keep::kReservoir);
  const auto stream =
      open_stream({.keep = keep, .max_examples = 60, .only_new = true, .replay = 1.5});
  add_all(*stream, 0, 20);
  CHECK(ids(*stream) == numbers(0, 20));  // nothing is old yet
  count(*stream, *stream->examples());
  add_all(*stream, 20, 26);
  const auto mixed = ids(*stream);
  REQUIRE(mixed.size() == 6 + 9);
  CHECK(std::vector(mixed.begin(), mixed.begin() + 6) == numbers(20, 26));
  const std::set<int> old(mixed.begin() + 6, mixed.end());
  CHECK(old.size() == 9);  // each once
  CHECK(*old.rbegin() < 20);
  CHECK(ids(*stream) == mixed);  // the same choice while nothing changes
}

TEST_CASE("a stream is the same after a restart") {
  const auto keep = GENERATE(Keep::kWindow, Keep::kReservoir);
  const auto only_new = GENERATE(false, true);
  const auto count = GENERATE(3, 20, 21, 500);
  const test::ScratchDirectory folder;
  StreamOptions options{.directory = folder.path() + "/stream",
                        .keep = keep,
                        .max_examples = 20,
                        .only_new = only_new,
                        .replay = only_new ? 1.0 : 0.0};
  StreamOptions in_memory = options;
  in_memory.directory.clear();
  const auto reference = open_stream(in_memory);
  std::vector<int> before;
  {
    const auto stream = open_stream(options);
    for (auto* each : {stream.get(), reference.get()}) {
      add_all(*each, 0, count);
      testing::count(*each, *each->examples());
      add_all(*each, count, count + 2);
    }
    before = ids(*stream);
    CHECK(before == ids(*reference));
  }
  std::string told;
  options.on_notice = [&](std::string_view text) { told += text; };
  const auto stream = open_stream(options);
  CHECK(told.empty());
  CHECK(stream->seen() == static_cast<std::uint64_t>(count) + 2);
  CHECK(ids(*stream) == before);
  // And goes on as if nothing had been.
  add_all(*stream, count + 2, count + 100);
  add_all(*reference, count + 2, count + 100);
  CHECK(ids(*stream) == ids(*reference));
}

TEST_CASE("bytes take a quarter of the memory, and images their values in steps of 1 over 255") {
  StreamOptions options{
      .shape = {2, 2, 1}, .element = StreamOptions::Element::kByte, .max_bytes = 160};
  const auto stream = open_stream(options);
  REQUIRE(stream->add(std::vector{0.f, 1.f, 0.2f, 0.5f}, 1).ok());
  REQUIRE(stream->add_bytes(std::vector<std::uint8_t>{255, 0, 51, 102}, 0).ok());
  const auto set = *stream->examples();
  CHECK(set->shape() == options.shape);
  const auto features = features_of(*set);
  CHECK(features[1] == 1.0f);
  CHECK(features[3] == Approx(128.0 / 255));
  CHECK(features[4] == 1.0f);
  CHECK(features[6] == Approx(0.2));
  CHECK_THAT(stream->add(std::vector{0.f, 1.5f, 0.f, 0.f}, 0).error().message,
             Contains("feature 1") && Contains("between 0 and 1"));
  for (int i = 0; i < 50; ++i) REQUIRE(stream->add_bytes(std::vector<std::uint8_t>(4, 1), 0).ok());
  CHECK(stream->kept() == 10);  // 4 + 12 bytes each
}

TEST_CASE("a wrong example is refused and changes nothing") {
  const auto stream = open_stream({.classes = 3});
  CHECK_THAT(stream->add(std::vector<float>{}, 0).error().message, Contains("0 features"));
  CHECK_THAT(stream->add(std::vector{1.f}, 3).error().message, Contains("label 3"));
  CHECK_THAT(stream->add(std::vector{1.f}, -1).error().message, Contains("label -1"));
  CHECK_THAT(stream->add(std::vector{1.f, std::nanf("")}, 0).error().message,
             Contains("feature 1"));
  REQUIRE(stream->add(std::vector{1.f, 2.f}, 0).ok());
  CHECK_THAT(stream->add(std::vector{1.f}, 0).error().message, Contains("have 2"));
  CHECK_THAT(stream->add_bytes(std::vector<std::uint8_t>{1, 2}, 0).error().message,
             Contains("floats"));
  CHECK(stream->seen() == 1);
  const auto shaped = open_stream({.shape = {2, 3}});
  CHECK_THAT(shaped->add(std::vector{1.f}, 0).error().message, Contains("have 6"));
  CHECK_THAT(refusal({.shape = {0}}), Contains("shape 0"));
  CHECK_THAT(refusal({.replay = 1}), Contains("only-new"));
}

TEST_CASE("threads add while others train on what there is") {
  const test::ScratchDirectory folder;
  const auto stream =
      open_stream({.directory = folder.path(), .max_examples = 64, .only_new = true});
  constexpr int kThreads = 4, kEach = 500;
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        if (!add(*stream, t * kEach + i).ok()) ++failures;
      }
    });
  }
  std::size_t trained = 0;
  for (int round = 0; round < 100; ++round) {
    const auto examples = stream->examples();
    if (!examples.ok()) continue;
    const auto features = features_of(**examples);
    for (std::size_t i = 0; i < features.size(); i += 2) {
      if (features[i] != -features[i + 1]) ++failures;
    }
    trained += (*examples)->size();
    count(*stream, *examples);
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(stream->seen() == kThreads * kEach);
  CHECK(trained <= kThreads * kEach);
}

TEST_CASE("a stream that was cleared begins anew") {
  const test::ScratchDirectory folder;
  const StreamOptions options{.directory = folder.path()};
  {
    const auto stream = open_stream(options);
    add_all(*stream, 0, 10);
    REQUIRE(stream->clear().ok());
    CHECK(stream->num_examples() == 0);
    const float one = 7;  // another shape, too
    REQUIRE(stream->add(std::span(&one, 1), 0).ok());
  }
  const auto stream = open_stream(options);
  CHECK(stream->seen() == 1);
  CHECK(features_of(**stream->examples()) == std::vector{7.f});
}
