#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/compression/compressor.hpp>
#include <covey/random.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace covey::compression::testing {

inline constexpr std::uint64_t kSeed = 20260217;
inline constexpr UpdateName kName{kSeed, RoundNumber{7}, ClientId{42}};

/// Every method with each of its parameters, without and with error feedback.
inline const std::vector<std::string>& all_specs() {
  static const std::vector<std::string> specs = {"fp32",
                                                 "fp16",
                                                 "fp16+error-feedback",
                                                 "bf16",
                                                 "bf16+error-feedback",
                                                 "int8",
                                                 "int8+error-feedback",
                                                 "int4",
                                                 "int4+error-feedback",
                                                 "int2",
                                                 "int2+error-feedback",
                                                 "sign",
                                                 "drive",
                                                 "drive+error-feedback",
                                                 "eden-1",
                                                 "eden-1+error-feedback",
                                                 "eden-2",
                                                 "eden-2+error-feedback",
                                                 "eden-3",
                                                 "eden-3+error-feedback",
                                                 "eden-4",
                                                 "eden-4+error-feedback",
                                                 "top-k:0.03",
                                                 "top-k:0.7",
                                                 "top-k:1",
                                                 "random-k:0.03",
                                                 "random-k:0.7+error-feedback",
                                                 "rate-distortion",
                                                 "rate-distortion:0.001",
                                                 "rate-distortion:1.9+error-feedback",
                                                 "int2+zstd",
                                                 "fp32+zstd",
                                                 "rate-distortion+zstd"};
  return specs;
}

/// One tensor; a matrix where that is whole, so that int8 has channels.
inline ModelLayout layout_of(std::size_t size) {
  ModelLayout layout;
  if (size == 0) return layout;
  if (size % 64 == 0 && size > 64) {
    layout.append("weight", {static_cast<std::uint32_t>(size / 64), 64});
  } else {
    layout.append("weight", {static_cast<std::uint32_t>(size)});
  }
  return layout;
}

inline std::unique_ptr<Compressor> make(const std::string& spec, const ModelLayout& layout) {
  const auto parsed = parse_compressor(spec);
  REQUIRE(parsed.ok());
  auto made = make_compressor(parsed.value(), layout);
  REQUIRE(made.ok());
  return std::move(made).value();
}

inline std::unique_ptr<Compressor> make(const std::string& spec, std::size_t size) {
  return make(spec, layout_of(size));
}

inline std::vector<float> normal_vector(std::size_t size, std::uint64_t seed = kSeed,
                                        double deviation = 0.01) {
  RandomStream random(seed, RandomPurpose::kTraining);
  std::vector<float> values(size);
  for (float& x : values) x = static_cast<float>(random.normal(0, deviation));
  return values;
}

/// Few values hold most of the norm, as in an update.
inline std::vector<float> heavy_vector(std::size_t size, std::uint64_t seed = kSeed) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  std::vector<float> values(size);
  for (float& x : values) {
    x = static_cast<float>(random.normal(0, 0.01) * random.log_normal(0, 1.5));
  }
  return values;
}

inline std::vector<float> decoded(Compressor& compressor, const SharedBytes& bytes,
                                  std::size_t size, const UpdateName& name = kName) {
  std::vector<float> out(size, 1e9f);
  const auto result = compressor.decode(bytes.span(), name, out);
  INFO((result.ok() ? "" : result.error().message));
  REQUIRE(result.ok());
  return out;
}

inline std::vector<float> round_trip(const std::string& spec, const std::vector<float>& values,
                                     const UpdateName& name = kName) {
  const auto compressor = make(spec, values.size());
  return decoded(*compressor, compressor->encode(values, name), values.size(), name);
}

inline double squared_norm(const std::vector<float>& values) {
  double sum = 0;
  for (const float x : values) sum += static_cast<double>(x) * x;
  return sum;
}

/// |a - b|^2 / |a|^2
inline double normalised_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum / squared_norm(a);
}

inline bool all_finite(const std::vector<float>& values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

inline std::vector<std::byte> copy_of(const SharedBytes& bytes) {
  return {bytes.span().begin(), bytes.span().end()};
}

}  // namespace covey::compression::testing
