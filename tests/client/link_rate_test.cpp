#include <catch2/catch.hpp>
#include <covey/client/link_rate.hpp>

using namespace covey;
using namespace covey::client;
using namespace std::chrono_literals;

TEST_CASE("before anything was measured a link is taken for a slow one") {
  const LinkRate rate;
  CHECK(rate.bytes_per_second() == 16 * 1024);
  CHECK(rate.piece(1s, 256 * 1024) == 16 * 1024);
  CHECK(rate.patience(4096) == Duration(1s));  // four times as long as at 16 KiB/s
}

TEST_CASE("pieces follow the rate that was measured") {
  LinkRate rate;
  for (int i = 0; i < 10; ++i) rate.measure(100 * 1024, 1s);
  CHECK(rate.bytes_per_second() == Approx(100 * 1024));
  CHECK(rate.piece(1s, 256 * 1024) == 100 * 1024);
  CHECK(rate.piece(1s, 64 * 1024) == 64 * 1024);
  CHECK(rate.patience(1024 * 1000) == Duration(40s));
  // Now it crawls at 2 KiB/s: the fast past is forgotten within two half-lives.
  for (int i = 0; i < 40; ++i) rate.measure(2 * 1024, 1s);
  CHECK(rate.bytes_per_second() < 10 * 1024);
  for (int i = 0; i < 60; ++i) rate.measure(2 * 1024, 1s);
  CHECK(rate.piece(1s, 256 * 1024) == 4096);  // never smaller
}

TEST_CASE("patience is bounded, whatever was measured") {
  LinkRate rate;
  rate.measure(1, 1h);
  CHECK(rate.bytes_per_second() == 256);
  CHECK(rate.patience(UINT64_MAX) == Duration(10min));
  LinkRate fast;
  fast.measure(1 << 20, 0s);
  CHECK(fast.bytes_per_second() > 1e8);
  CHECK(fast.patience(1 << 20) < Duration(1s));
}

TEST_CASE("pieces become smaller where connections break, and grow again") {
  constexpr std::uint32_t kMost = 256 * 1024;
  LinkRate rate;
  rate.measure(100 << 20, 1s);
  CHECK(rate.piece(1s, kMost) == kMost);
  rate.broke(kMost);
  CHECK(rate.piece(1s, kMost) == kMost / 2);
  for (int i = 0; i < 20; ++i) rate.broke(kMost);
  CHECK(rate.piece(1s, kMost) == 16 * 1024);
  int pieces = 0;
  for (; rate.piece(1s, kMost) < kMost; ++pieces) rate.came_across(kMost);
  CHECK(pieces > 6);
  CHECK(pieces < 60);
}
