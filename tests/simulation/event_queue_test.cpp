#include "simulation/event_queue.hpp"

#include <catch2/catch.hpp>
#include <covey/random.hpp>
#include <string>
#include <vector>

using covey::Duration;
using covey::Time;
using covey::simulation::EventQueue;

TEST_CASE("events come out in order of time, those of one moment in order of insertion") {
  EventQueue<std::string> queue;
  queue.push(Time(Duration(5)), "later");
  queue.push(Time(Duration(1)), "first");
  queue.push(Time(Duration(1)), "second");
  queue.push(Time(Duration(0)), "now");
  std::vector<std::string> order;
  while (!queue.empty()) order.push_back(queue.pop().second);
  CHECK(order == std::vector<std::string>{"now", "first", "second", "later"});
}

TEST_CASE("slots are reused and nothing is lost under random pushes and pops") {
  constexpr std::uint64_t kSeed = 7;
  INFO("seed " << kSeed);
  covey::RandomStream random(kSeed, covey::RandomPurpose::kFault);
  EventQueue<std::uint64_t> queue;
  std::uint64_t pushed = 0, popped_sum = 0, pushed_sum = 0;
  Time last{};
  for (int i = 0; i < 20000; ++i) {
    if (queue.empty() || random.below(3) != 0) {
      queue.push(last + Duration(static_cast<std::int64_t>(random.below(100))), ++pushed);
      pushed_sum += pushed;
    } else {
      const auto [at, value] = queue.pop();
      REQUIRE(at >= last);
      last = at;
      popped_sum += value;
    }
  }
  while (!queue.empty()) popped_sum += queue.pop().second;
  CHECK(popped_sum == pushed_sum);
}
