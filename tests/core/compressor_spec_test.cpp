#include <catch2/catch.hpp>
#include <covey/compressor_spec.hpp>
#include <string>

namespace covey {

TEST_CASE("a compressor's name reads back as the same") {
  for (const std::string text :
       {"fp32", "fp16", "bf16", "int8", "int4", "int2", "sign", "drive", "eden-1", "eden-4", "top-k:0.01",
        "random-k:0.25", "rate-distortion:0.5", "int8+zstd", "eden-2+error-feedback",
        "random-k:0.1+error-feedback+zstd"}) {
    const auto spec = parse_compressor(text);
    INFO(text);
    REQUIRE(spec.ok());
    CHECK(to_string(*spec) == text);
    CHECK(supports(compressor_names(), *spec));
  }
}

TEST_CASE("top-k and sign always have error feedback, and others when asked") {
  CHECK(parse_compressor("top-k:0.01")->error_feedback);
  CHECK(parse_compressor("sign")->error_feedback);
  CHECK_FALSE(parse_compressor("drive")->error_feedback);
  CHECK(parse_compressor("drive+error-feedback")->error_feedback);
  CHECK_FALSE(parse_compressor("fp32+error-feedback")->error_feedback);  // it loses nothing
}

TEST_CASE("what is wrong with a compressor's name is said") {
  const auto problem = [](const std::string& text) {
    const auto spec = parse_compressor(text);
    REQUIRE_FALSE(spec.ok());
    return spec.error().message;
  };
  CHECK(problem("gzip").find("there is no compressor \"gzip\"; there are fp32, fp16") == 0);
  CHECK(problem("top-k").find("needs the share") != std::string::npos);
  CHECK(problem("top-k:2").find("at most 1") != std::string::npos);
  CHECK(problem("top-k:nan").find("above 0") != std::string::npos);
  CHECK(problem("int8:3").find("takes no parameter") != std::string::npos);
  CHECK(problem("int8+brotli").find("no option \"+brotli\"") != std::string::npos);
  CHECK(problem("rate-distortion:2+error-feedback").find("step must be below 2") !=
        std::string::npos);
  CHECK(problem("").find("there is no compressor \"\"") == 0);
}

TEST_CASE("a device that lacks a name or an option of a compressor does not support it") {
  CHECK_FALSE(supports({"fp32", "int8"}, *parse_compressor("int4")));
  CHECK_FALSE(supports({"top-k"}, *parse_compressor("top-k:0.1")));
  CHECK(supports({"top-k", "error-feedback"}, *parse_compressor("top-k:0.1")));
  CHECK_FALSE(supports({"int8"}, *parse_compressor("int8+zstd")));
}

}  // namespace covey
