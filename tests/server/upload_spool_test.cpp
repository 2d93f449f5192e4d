#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <covey/server/upload_spool.hpp>
#include <csignal>
#include <fstream>
#include <iterator>

#include "server_test_support.hpp"

using namespace covey;
using namespace covey::server;
using covey::server::test::in_child;
using covey::server::test::TemporaryDirectory;
namespace fs = std::filesystem;

namespace {

SharedBytes bytes_of(const std::string& text) {
  const auto span = std::as_bytes(std::span(text));
  return SharedBytes(std::vector<std::byte>(span.begin(), span.end()));
}

std::string text_of(const SharedBytes& bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

UploadKey key_of(std::uint64_t client, std::uint32_t round = 3) {
  return {RunId{0x1234}, RoundNumber{round}, ClientId{client},
          sha256(std::as_bytes(std::span(&client, 1)))};
}

std::unique_ptr<UploadSpool> file_spool(const TemporaryDirectory& directory) {
  auto made = make_file_spool(directory.file("uploads"));
  REQUIRE(made.ok());
  return std::move(made).value();
}

std::size_t files_in(const TemporaryDirectory& directory) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(directory.file("uploads")), fs::directory_iterator()));
}

/// Both kinds keep the same promises.
std::unique_ptr<UploadSpool> either_spool(const TemporaryDirectory& directory) {
  const bool in_memory = GENERATE(true, false);
  INFO((in_memory ? "memory spool" : "file spool"));
  return in_memory ? make_memory_spool() : file_spool(directory);
}

}  // namespace

TEST_CASE("an upload in chunks is read back whole and outlives its spool") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  const UploadKey key = key_of(1);
  REQUIRE(spool->open(key, 10).value() == 0);
  REQUIRE(spool->write(key, 0, bytes_of("0123")).ok());
  CHECK(spool->open(key, 10).value() == 4);
  REQUIRE(spool->write(key, 4, bytes_of("456789")).ok());
  CHECK(spool->open(key, 10).value() == 10);
  const auto whole = spool->read(key);
  REQUIRE(whole.ok());
  spool->drop(key);
  CHECK_FALSE(spool->read(key).ok());
  CHECK(spool->open(key, 10).value() == 0);
  spool.reset();
  CHECK(text_of(*whole) == "0123456789");
}

TEST_CASE("bytes that are held are skipped and never change") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  const UploadKey key = key_of(1);
  REQUIRE(spool->open(key, 6).ok());
  REQUIRE(spool->write(key, 0, bytes_of("abcd")).ok());
  REQUIRE(spool->write(key, 0, bytes_of("XX")).ok());
  REQUIRE(spool->write(key, 2, bytes_of("YYef")).ok());
  const auto whole = spool->read(key);
  REQUIRE(whole.ok());
  REQUIRE(spool->write(key, 0, bytes_of("ZZZZZZ")).ok());
  CHECK(text_of(*whole) == "abcdef");
  CHECK(text_of(spool->read(key).value()) == "abcdef");
}

TEST_CASE("a gap, bytes beyond the end and an unknown upload are refused") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  const UploadKey key = key_of(1);
  CHECK_FALSE(spool->write(key, 0, bytes_of("ab")).ok());
  REQUIRE(spool->open(key, 4).ok());
  CHECK_FALSE(spool->write(key, 1, bytes_of("b")).ok());
  CHECK_FALSE(spool->write(key, 0, bytes_of("abcde")).ok());
  CHECK_FALSE(spool->write(key, ~std::uint64_t{0}, bytes_of("ab")).ok());
  CHECK(spool->open(key, 4).value() == 0);
  CHECK_FALSE(spool->open(key_of(2), kMaxUploadBytes + 1).ok());
}

TEST_CASE("an incomplete upload cannot be read") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  const UploadKey key = key_of(1);
  REQUIRE(spool->open(key, 4).ok());
  REQUIRE(spool->write(key, 0, bytes_of("abc")).ok());
  const auto read = spool->read(key);
  REQUIRE_FALSE(read.ok());
  CHECK_THAT(read.error().message,
             Catch::Contains("client 1 in round 3") && Catch::Contains("3 of 4"));
}

TEST_CASE("another announced size starts the upload over") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  const UploadKey key = key_of(1);
  REQUIRE(spool->open(key, 8).ok());
  REQUIRE(spool->write(key, 0, bytes_of("abcd")).ok());
  CHECK(spool->open(key, 6).value() == 0);
  REQUIRE(spool->write(key, 0, bytes_of("uvwxyz")).ok());
  CHECK(text_of(spool->read(key).value()) == "uvwxyz");
}

TEST_CASE("only the uploads of a round are kept") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  UploadKey other_run = key_of(1, 3);
  other_run.run = RunId{0x9999};
  for (const UploadKey& key : {key_of(1, 2), key_of(1, 3), key_of(2, 3), other_run}) {
    REQUIRE(spool->open(key, 2).ok());
    REQUIRE(spool->write(key, 0, bytes_of("a")).ok());
  }
  spool->keep_only(RunId{0x1234}, RoundNumber{3});
  CHECK(spool->open(key_of(1, 3), 2).value() == 1);
  CHECK(spool->open(key_of(2, 3), 2).value() == 1);
  CHECK(spool->open(key_of(1, 2), 2).value() == 0);
  CHECK(spool->open(other_run, 2).value() == 0);
}

TEST_CASE("an empty upload is complete at once") {
  const TemporaryDirectory directory;
  auto spool = either_spool(directory);
  REQUIRE(spool->open(key_of(1), 0).value() == 0);
  CHECK(spool->read(key_of(1)).value().empty());
}

TEST_CASE("in memory a chunk that is the whole update is shared") {
  auto spool = make_memory_spool();
  const auto chunk = bytes_of("the whole update");
  REQUIRE(spool->open(key_of(1), chunk.size()).ok());
  REQUIRE(spool->write(key_of(1), 0, chunk).ok());
  CHECK(spool->read(key_of(1)).value().data() == chunk.data());
}

TEST_CASE("files go on where they stopped after a restart") {
  const TemporaryDirectory directory;
  {
    auto spool = file_spool(directory);
    for (const std::uint64_t client : {1, 2, 3}) {
      REQUIRE(spool->open(key_of(client), 8).ok());
      REQUIRE(spool->write(key_of(client), 0, bytes_of("abcde")).ok());
    }
  }
  auto spool = file_spool(directory);
  CHECK_FALSE(spool->write(key_of(1), 5, bytes_of("fgh")).ok());  // announced again first
  REQUIRE(spool->open(key_of(1), 8).value() == 5);
  REQUIRE(spool->write(key_of(1), 5, bytes_of("fgh")).ok());
  CHECK(text_of(spool->read(key_of(1)).value()) == "abcdefgh");
  CHECK(spool->open(key_of(2), 4).value() == 0);  // more was held than is announced now
  spool->keep_only(RunId{0x1234}, RoundNumber{4});
  CHECK(files_in(directory) == 0);
}

TEST_CASE("files that are no uploads are left alone") {
  const TemporaryDirectory directory;
  auto spool = file_spool(directory);
  REQUIRE(spool->open(key_of(1), 8).ok());
  const std::string name =
      fs::directory_iterator(directory.file("uploads"))->path().filename().string();
  spool.reset();
  std::string upper = name;
  upper[12] = 'A';
  std::string sign = name;
  sign[0] = '+';
  for (const std::string& other :
       {name + "x", "x" + name, upper, sign, std::string("notes.part")}) {
    std::ofstream(directory.file("uploads/" + other)) << "not an upload";
  }
  fs::create_directory(directory.file("uploads/folder"));
  REQUIRE(files_in(directory) == 7);
  spool = file_spool(directory);
  spool->keep_only(RunId{0}, RoundNumber{0});
  CHECK(files_in(directory) == 6);
}

TEST_CASE("a file that is read is aligned for floats") {
  const TemporaryDirectory directory;
  auto spool = file_spool(directory);
  REQUIRE(spool->open(key_of(1), 4).ok());
  REQUIRE(spool->write(key_of(1), 0, bytes_of("abcd")).ok());
  const auto whole = spool->read(key_of(1));
  REQUIRE(whole.ok());
  CHECK(reinterpret_cast<std::uintptr_t>(whole->data()) % 64 == 0);
}

TEST_CASE("open and mapped uploads hold no descriptors") {
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const TemporaryDirectory directory;
  auto spool = file_spool(directory);
  const auto before = descriptors();
  std::vector<SharedBytes> mapped;
  for (std::uint64_t client = 0; client < 100; ++client) {
    REQUIRE(spool->open(key_of(client), 4).ok());
    REQUIRE(spool->write(key_of(client), 0, bytes_of("abcd")).ok());
    auto whole = spool->read(key_of(client));
    REQUIRE(whole.ok());
    mapped.push_back(std::move(whole).value());
  }
  CHECK(descriptors() == before);
}

TEST_CASE("a write that the disk refuses keeps what fitted, and goes on when there is room") {
  const TemporaryDirectory directory;
  auto spool = file_spool(directory);
  const std::string outcome = in_child([&]() -> std::string {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const UploadKey key = key_of(1);
    if (!spool->open(key, 6000).ok()) return "not opened";
    const auto payload = bytes_of(std::string(6000, 'x'));
    const rlimit small{.rlim_cur = 4096, .rlim_max = limit.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const auto refused = spool->write(key, 0, payload);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    if (refused.ok()) return "a write beyond the limit succeeded";
    if (refused.error().message.find(".part at byte 4096") == std::string::npos) {
      return refused.error().message;
    }
    if (spool->open(key, 6000).value() != 4096) return "the part that fitted is not held";
    if (!spool->write(key, 4096, payload.slice(4096, 6000 - 4096)).ok()) return "cannot go on";
    const auto whole = spool->read(key);
    if (!whole.ok()) return whole.error().message;
    return text_of(*whole) == std::string(6000, 'x') ? "" : "other bytes came back";
  });
  CHECK(outcome == "");
}

TEST_CASE("a spool is refused where there is no directory") {
  const TemporaryDirectory directory;
  std::ofstream(directory.file("file")) << "x";
  const auto spool = make_file_spool(directory.file("file/uploads"));
  REQUIRE_FALSE(spool.ok());
  CHECK_THAT(spool.error().message, Catch::Contains("file/uploads"));
  CHECK_FALSE(make_file_spool(directory.file("file")).ok());
}
