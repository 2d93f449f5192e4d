#include <catch2/catch.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/run_config.hpp>
#include <string>
#include <vector>

namespace covey {
namespace {

constexpr const char* kSecure =
    "[secure-aggregation]\nmode = \"honest-but-curious\"\nmax-weight = 600\n";

Result<RunConfig> read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_run_text(text, "run.toml", overrides);
}
std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto config = read(text, overrides);
  return config.ok() ? "(no error)" : config.error().message;
}
SecureAggregationPlan sum_of(const std::vector<std::string>& overrides) {
  const auto config = read(kSecure, overrides);
  if (!config.ok()) FAIL(config.error().message);
  return secure_aggregation_plan_of(*config, 10).value();
}

}  // namespace

TEST_CASE("a run file names a compressor, or several by preference") {
  using Names = std::vector<std::string>;
  CHECK(read("")->client.compressors == Names{"auto"});
  CHECK(compressors_of(*read("")) == Names{"fp32"});
  CHECK(read("[client]\ncompressor = \"top-k:0.010\"\n")->client.compressors ==
        Names{"top-k:0.01"});
  const auto list = read("[client]\ncompressor = [\"eden-1\", \"int8+zstd\", \"fp32\"]\n");
  REQUIRE(list.ok());
  CHECK(compressors_of(*list) == Names{"eden-1", "int8+zstd", "fp32"});
  CHECK(compressor_of(*list) == "eden-1");
  CHECK(read("", {"client.compressor=eden-2+error-feedback"})->client.compressors ==
        Names{"eden-2+error-feedback"});
  CHECK(read("", {"client.compressor=[\"drive\", \"fp32\"]"})->client.compressors ==
        Names{"drive", "fp32"});
}

TEST_CASE("what a run file says of compressors reads back as the same") {
  for (const char* value : {"\"auto\"", "\"sign\"", "[\"eden-1\", \"fp16\"]", "[\"bf16\"]"}) {
    const auto config = read("", {std::string("client.compressor=") + value});
    REQUIRE(config.ok());
    const auto back = read(to_toml(*config));
    REQUIRE(back.ok());
    CHECK(back->client.compressors == config->client.compressors);
  }
}

TEST_CASE("a compressor that there is not is refused naming the key, and what there is") {
  CHECK_THAT(error_of("[client]\ncompressor = \"gzip\"\n"),
             Catch::StartsWith("run.toml:2: client.compressor: there is no compressor \"gzip\"; "
                               "there are fp32, fp16"));
  CHECK_THAT(error_of("[client]\ncompressor = [\"fp32\", \"top-k\"]\n"),
             Catch::Contains("client.compressor: compressor \"top-k\" needs the share"));
  CHECK_THAT(error_of("[client]\ncompressor = []\n"), Catch::Contains("name at least one"));
  CHECK_THAT(error_of("[client]\ncompressor = [\"int8\", \"int8\"]\n"),
             Catch::Contains("stands there twice"));
  CHECK_THAT(error_of("[client]\ncompressor = 8\n"), Catch::Contains("found the number 8"));
  CHECK_THAT(error_of("[client]\ncompressor = [\"auto\", \"int8\"]\n"),
             Catch::Contains("there is no compressor \"auto\""));
}

TEST_CASE("a device that trains in int8 sends int8 and nothing else") {
  for (const char* other : {"eden-1", "int8+zstd", "int8+error-feedback", "fp32"}) {
    CHECK_THAT(error_of("", {"client.precision=int8", std::string("client.compressor=") + other}),
               Catch::Contains("holds no weights") || Catch::Contains("hold no weights"));
  }
  CHECK_THAT(error_of("", {"client.precision=int8", "client.compressor=[\"int8\", \"drive\"]"}),
             Catch::Contains("\"drive\" does not go with client.precision = \"int8\""));
  CHECK(error_of("", {"client.precision=bf16", "client.compressor=eden-1"}) == "(no error)");
}

TEST_CASE("what adds up sets how a secure sum's coordinates are encoded") {
  struct Case {
    const char* compressor;
    std::uint32_t bits;
    bool rotation;
    double subsample;
  };
  for (const Case& c : {Case{"auto", 16, false, 1},
                        {"fp32", 16, false, 1},
                        {"int8", 8, false, 1},
                        {"int4", 4, false, 1},
                        {"int2", 2, false, 1},
                        {"eden-1", 2, true, 1},
                        {"eden-2", 2, true, 1},
                        {"eden-4+error-feedback", 4, true, 1},
                        {"random-k:0.1", 16, false, 0.1}}) {
    CAPTURE(c.compressor);
    const auto plan = sum_of({std::string("client.compressor=") + c.compressor});
    CHECK(plan.bits == c.bits);
    CHECK(plan.rotation == c.rotation);
    CHECK(plan.subsample == c.subsample);
  }
  const auto both = sum_of({"client.compressor=random-k:0.25", "secure-aggregation.bits=4",
                            "secure-aggregation.rotation=true"});
  CHECK(both.bits == 4);
  CHECK(both.rotation);
  CHECK(both.subsample == 0.25);
}

TEST_CASE("a key that the compressor decides says nothing beside it") {
  CHECK_THAT(
      error_of(kSecure, {"client.compressor=int4", "secure-aggregation.bits=8"}),
      Catch::Contains("secure-aggregation.bits: says nothing without a client.compressor that "
                      "leaves the bits open"));
  CHECK_THAT(error_of(kSecure, {"client.compressor=eden-2", "secure-aggregation.rotation=true"}),
             Catch::Contains("secure-aggregation.rotation: says nothing"));
  CHECK_THAT(error_of(kSecure, {"client.compressor=int4", "secure-aggregation.adaptive-clip=true"}),
             Catch::Contains("secure-aggregation.adaptive-clip: says nothing"));
}

TEST_CASE("a secure sum refuses what would be lost in it") {
  for (const char* compressor : {"fp16", "bf16", "sign", "drive", "top-k:0.1", "rate-distortion"}) {
    CHECK_THAT(error_of(kSecure, {std::string("client.compressor=") + compressor}),
               Catch::Contains("would not add up") && Catch::Contains("\"eden-1\" to \"eden-4\""));
  }
  CHECK_THAT(error_of(kSecure, {"client.compressor=int8+zstd"}),
             Catch::Contains("leave out \"+zstd\""));
  CHECK_THAT(error_of(kSecure, {"client.compressor=[\"int8\", \"int4\"]"}),
             Catch::Contains("name one compressor"));
}

TEST_CASE("differential privacy refuses what it is not counted with") {
  const std::string noised =
      "[secure-aggregation]\nmode = \"honest-but-curious\"\n[privacy]\nmechanism = \"skellam\"\n";
  CHECK(error_of(noised, {"client.compressor=int8"}) == "(no error)");
  CHECK_THAT(error_of(noised, {"client.compressor=int8+error-feedback"}),
             Catch::Contains("leave out error feedback"));
  CHECK_THAT(error_of(noised, {"client.compressor=random-k:0.5"}),
             Catch::Contains("scales the sum up by what it leaves out"));
  CHECK_THAT(
      error_of("[privacy]\nmechanism = \"central-gaussian\"\n", {"client.compressor=eden-1"}),
      Catch::Contains("\"eden-1\" rounds an update after it was clipped"));
}

TEST_CASE("the range of few bits adapts to the updates, but not under differential privacy") {
  const auto adapts = [](const std::string& text, std::vector<std::string> overrides) {
    const auto config = read(text, overrides);
    if (!config.ok()) FAIL(config.error().message);
    return adapts_clip(*config);
  };
  CHECK_FALSE(adapts("", {"client.compressor=int4"}));
  CHECK_FALSE(adapts(kSecure, {}));
  CHECK(adapts(kSecure, {"client.compressor=int4"}));
  CHECK(adapts(kSecure, {"secure-aggregation.adaptive-clip=true"}));
  CHECK_FALSE(adapts(
      "[secure-aggregation]\nmode = \"honest-but-curious\"\n[privacy]\nmechanism = \"skellam\"\n",
      {"client.compressor=int8"}));
}

}  // namespace covey
