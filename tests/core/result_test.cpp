#include <catch2/catch.hpp>
#include <covey/result.hpp>
#include <memory>
#include <string>
#include <utility>

namespace covey {
namespace {

Result<int> half(int x) {
  if (x % 2 != 0) return invalid_argument(std::to_string(x) + " is odd");
  return x / 2;
}

Result<int> quarter(int x) {
  COVEY_ASSIGN(const int halved, half(x));
  return half(halved);
}

Result<void> check_even(int x, int& reached) {
  COVEY_TRY(half(x));
  ++reached;
  return {};
}

}  // namespace

TEST_CASE("a result holds a value or an error") {
  CHECK(half(4).value() == 2);
  const auto bad = half(3);
  REQUIRE_FALSE(bad.ok());
  CHECK(bad.error().code == ErrorCode::kInvalidArgument);
  CHECK(bad.error().message == "3 is odd");
}

TEST_CASE("COVEY_ASSIGN hands on the value or returns the error") {
  CHECK(*quarter(12) == 3);
  CHECK(quarter(5).error().message == "5 is odd");
  CHECK(quarter(6).error().message == "3 is odd");
}

TEST_CASE("COVEY_TRY goes on after success and returns after an error") {
  int reached = 0;
  CHECK(check_even(2, reached).ok());
  CHECK(reached == 1);
  CHECK_FALSE(check_even(1, reached).ok());
  CHECK(reached == 1);
}

TEST_CASE("a result can hold what can only be moved") {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  const std::unique_ptr<int> value = std::move(result).value();
  CHECK(*value == 7);
}

TEST_CASE("context goes in front of the message and keeps the code") {
  const Error error = with_context("run.toml", not_found("no such file"));
  CHECK(error.code == ErrorCode::kNotFound);
  CHECK(error.message == "run.toml: no such file");
}

}  // namespace covey
