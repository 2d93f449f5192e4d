#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "local_data_support.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;
using Catch::Matchers::Contains;
using Keep = StreamOptions::Keep;

namespace {

std::unique_ptr<ExampleStream> open_stream(StreamOptions options, std::string* told = nullptr) {
  if (told) options.on_notice = [told](std::string_view text) { *told += text; };
  auto stream = ExampleStream::open(options);
  INFO((stream.ok() ? "" : stream.error().message));
  REQUIRE(stream.ok());
  return std::move(stream).value();
}

Result<void> add(ExampleStream& stream, int i) {
  const float value = static_cast<float>(i);
  return stream.add(std::span(&value, 1), i % 5);
}

void add_all(ExampleStream& stream, int from, int to) {
  for (int i = from; i < to; ++i) REQUIRE(add(stream, i).ok());
}

std::vector<int> ids(ExampleStream& stream) {
  const auto examples = stream.examples();
  if (!examples.ok()) return {};
  std::vector<int> found;
  for (const float value : features_of(**examples)) found.push_back(static_cast<int>(value));
  const auto labels = labels_of(**examples);
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(labels[i] == found[i] % 5);
  return found;
}

std::vector<int> numbers(int from, int to) {
  std::vector<int> all(static_cast<std::size_t>(to - from));
  std::iota(all.begin(), all.end(), from);
  return all;
}

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// No file of this process may become longer than `bytes`, as if the disk were full.
class FullDisk {
 public:
  explicit FullDisk(std::uint64_t bytes) {
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_) == 0);
    const rlimit limit{bytes, old_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  void (*old_handler_)(int) = SIG_DFL;
};

}  // namespace

TEST_CASE("a file that is cut anywhere gives the examples in front of the cut") {
  const test::ScratchDirectory folder;
  const std::string file = folder.path() + "/s/examples.log";
  const StreamOptions options{.directory = folder.path() + "/s", .max_examples = 4};
  {
    const auto stream = open_stream(options);
    add_all(*stream, 0, 6);
    count(*stream, *stream->examples());
  }
  const std::string whole = read_all(file);
  std::size_t last = 0;
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    folder.write("s/examples.log", whole.substr(0, length));
    std::string told;
    const auto stream = open_stream(options, &told);
    const auto seen = static_cast<int>(stream->seen());
    REQUIRE(ids(*stream) == numbers(std::max(0, seen - 4), seen));
    REQUIRE(stream->seen() >= last);
    last = stream->seen();
    // What was cut off does not stand in the way of what comes.
    REQUIRE(add(*stream, seen).ok());
    REQUIRE(ids(*stream).back() == seen);
  }
  CHECK(last == 6);
}

TEST_CASE("a byte that was changed anywhere is noticed") {
  const test::ScratchDirectory folder;
  const StreamOptions options{.directory = folder.path() + "/s", .max_examples = 4};
  {
    const auto stream = open_stream(options);
    add_all(*stream, 0, 6);
    count(*stream, *stream->examples());
  }
  const std::string whole = read_all(folder.path() + "/s/examples.log");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    folder.write("s/examples.log", changed);
    std::string told;
    const auto stream = open_stream(options, &told);
    const auto seen = static_cast<int>(stream->seen());
    INFO("byte " << at);
    REQUIRE_FALSE(told.empty());
    REQUIRE(ids(*stream) == numbers(std::max(0, seen - 4), seen));
  }
}

TEST_CASE("a file that is none of a stream's is put aside and the stream begins anew") {
  const test::ScratchDirectory folder;
  folder.write("examples.log", "this is something else");
  std::string told;
  const auto stream = open_stream({.directory = folder.path()}, &told);
  CHECK_THAT(told, Contains("examples.log.broken"));
  CHECK(read_all(folder.path() + "/examples.log.broken") == "this is something else");
  add_all(*stream, 0, 3);
  CHECK(ids(*stream) == numbers(0, 3));
}

TEST_CASE("the file stays within a multiple of what is kept, however many examples come") {
  const test::ScratchDirectory folder;
  const auto keep = GENERATE(Keep::kWindow, Keep::kReservoir);
  const auto stream = open_stream({.directory = folder.path(), .keep = keep, .max_examples = 100});
  std::uintmax_t largest = 0;
  for (int i = 0; i < 20000; ++i) {
    REQUIRE(add(*stream, i).ok());
    if (i % 100 == 0) {
      largest = std::max(largest, std::filesystem::file_size(folder.path() + "/examples.log"));
    }
  }
  // 100 records of 52 bytes, twice, and 64 KiB.
  CHECK(largest < 80'000);
  CHECK(stream->seen() == 20000);
}

TEST_CASE("other limits than before keep what fits them") {
  const test::ScratchDirectory folder;
  StreamOptions options{.directory = folder.path(), .max_examples = 20};
  {
    const auto stream = open_stream(options);
    add_all(*stream, 0, 50);
  }
  SECTION("a smaller window") {
    options.max_examples = 5;
    const auto stream = open_stream(options);
    CHECK(ids(*stream) == numbers(45, 50));
    add_all(*stream, 50, 52);
    CHECK(ids(*stream) == numbers(47, 52));
  }
  SECTION("a larger window") {
    options.max_examples = 30;
    {
      const auto stream = open_stream(options);
      add_all(*stream, 50, 65);
      CHECK(ids(*stream) == numbers(35, 65));
    }
    const auto stream = open_stream(options);
    CHECK(ids(*stream) == numbers(35, 65));
    add_all(*stream, 65, 66);
    CHECK(ids(*stream) == numbers(36, 66));
  }
  SECTION("a reservoir") {
    options.keep = Keep::kReservoir;
    options.max_examples = 8;
    const auto stream = open_stream(options);
    CHECK(ids(*stream).size() == 8);
    CHECK(ids(*stream).front() >= 30);
    CHECK(stream->seen() == 50);
  }
}

TEST_CASE("examples of another kind than those in the file are refused") {
  const test::ScratchDirectory folder;
  add_all(*open_stream({.directory = folder.path()}), 0, 5);
  const auto refusal = [&](StreamOptions options) {
    options.directory = folder.path();
    const auto stream = ExampleStream::open(options);
    return stream.ok() ? "(no error)" : stream.error().message;
  };
  CHECK_THAT(refusal({.shape = {2}}), Contains("shape 1") && Contains("say 2"));
  CHECK_THAT(refusal({.element = StreamOptions::Element::kByte}), Contains("element"));
  CHECK_THAT(refusal({.classes = 3}), Contains("class 4"));
  CHECK(refusal({.shape = {1}, .classes = 5}) == "(no error)");
}

TEST_CASE("one stream at a time has a directory") {
  const test::ScratchDirectory folder;
  const auto stream = open_stream({.directory = folder.path()});
  const auto second = ExampleStream::open({.directory = folder.path()});
  REQUIRE_FALSE(second.ok());
  CHECK_THAT(second.error().message, Contains("another process"));
}

TEST_CASE("a full disk refuses examples and loses none of those it has") {
  const test::ScratchDirectory folder;
  const StreamOptions options{.directory = folder.path(), .max_examples = 2000};
  const std::string file = folder.path() + "/examples.log";
  const auto stream = open_stream(options);
  add_all(*stream, 0, 10);
  for (std::uint64_t room = 0; room < 120; room += 7) {
    const auto seen = static_cast<int>(stream->seen());
    {
      const FullDisk full(std::filesystem::file_size(file) + room);
      int added = 0;
      while (add(*stream, seen + added).ok()) ++added;
      CHECK(stream->seen() == static_cast<std::uint64_t>(seen + added));
      CHECK_THAT(add(*stream, 0).error().message, Contains("examples.log"));
    }
    add_all(*stream, static_cast<int>(stream->seen()), static_cast<int>(stream->seen()) + 1);
    REQUIRE(ids(*stream) == numbers(0, static_cast<int>(stream->seen())));
  }
  const auto all = ids(*stream);
  folder.write("copy/examples.log", read_all(file));
  StreamOptions copy = options;
  copy.directory = folder.path() + "/copy";
  std::string told;
  CHECK(ids(*open_stream(copy, &told)) == all);
  CHECK(told.empty());
}

TEST_CASE("the rows of a table are taken once, even where taking was interrupted") {
  const test::ScratchDirectory folder;
  const StreamOptions options{.directory = folder.path() + "/s"};
  std::string text = "x,label\n";
  for (int i = 0; i < 200; ++i) text += std::to_string(i) + "," + std::to_string(i % 5) + "\n";
  const std::string path = write_old(folder, "t.csv", text);
  for (const std::uint64_t room : {500, 1000, 3000, 9000}) {
    const auto stream = open_stream(options);
    const FullDisk full(room);
    CHECK_FALSE(stream->take_csv(path, "label", {}).ok());
    CHECK(ids(*stream) == numbers(0, static_cast<int>(stream->seen())));
  }
  const auto stream = open_stream(options);
  CHECK(stream->seen() > 0);
  CHECK(stream->seen() < 200);
  REQUIRE(stream->take_csv(path, "label", {}).ok());
  CHECK(ids(*stream) == numbers(0, 200));
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("tables that are moved into a stream's inbox become examples") {
  const test::ScratchDirectory folder;
  std::string told;
  const auto data = open_data("stream:" + folder.path() + ",max-examples=100",
                              [&](std::string_view text) { told += text; });
  CHECK(data->num_examples() == 0);
  write_old(folder, "inbox/b.csv", "x,label\n3,3\n4,4");
  write_old(folder, "inbox/a.csv", "x,label\n1,1\n2,2\n");
  write_old(folder, "inbox/aa.csv", "x,label\n1.5,nothing\n");
  folder.write("inbox/young.csv", "x,label\n5,0\n");  // may still be written
  CHECK(data->num_examples() == 4);
  CHECK(features_of(*examples_of(*data)) == std::vector{1.f, 2.f, 3.f, 4.f});
  CHECK_THAT(told, Contains("aa.csv:2") && Contains("aa.csv.refused"));
  CHECK_FALSE(std::filesystem::exists(folder.path() + "/inbox/a.csv"));
  CHECK(std::filesystem::exists(folder.path() + "/inbox/aa.csv.refused"));
  CHECK(std::filesystem::exists(folder.path() + "/inbox/young.csv"));
  make_older(folder.path() + "/inbox/young.csv");
  CHECK(data->num_examples() == 5);
}

TEST_CASE("an update that is counted after a restart uses up its examples") {
  const bool written_anew = GENERATE(false, true);
  const test::ScratchDirectory folder;
  const StreamOptions options{
      .directory = folder.path() + "/s", .max_examples = 20, .only_new = true};
  StreamOptions fewer = options;
  fewer.max_examples = 10;
  {
    const auto stream = open_stream(options);
    add_all(*stream, 0, 4);
    const auto examples = *stream->examples();
    add_all(*stream, 4, 6);  // while it trains
    stream->update_made(examples, RunId{7}, RoundNumber{3});
  }
  if (written_anew) open_stream(fewer);
  {
    const auto stream = open_stream(written_anew ? fewer : options);
    CHECK(ids(*stream) == numbers(0, 6));  // nobody has counted it yet
    stream->update_counted(RunId{7}, RoundNumber{2});
    stream->update_counted(RunId{8}, RoundNumber{3});
    CHECK(ids(*stream) == numbers(0, 6));
    stream->update_counted(RunId{7}, RoundNumber{3});
    CHECK(ids(*stream) == numbers(4, 6));
  }
  CHECK(ids(*open_stream(written_anew ? fewer : options)) == numbers(4, 6));
}
