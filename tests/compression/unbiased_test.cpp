#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

TEST_CASE("the mean of many encodings approaches the update") {
  const std::string spec =
      GENERATE("fp16", "bf16", "int8", "int4", "int2", "drive", "eden-1", "eden-2", "eden-3",
               "eden-4", "random-k:0.25", "rate-distortion", "rate-distortion:2", "int4+zstd");
  CAPTURE(kSeed, spec);
  constexpr std::size_t kSize = 4096;
  constexpr std::uint32_t kTimes = 400;
  // The rotation's random signs alone leave a little bias where few values hold most of the norm.
  const bool rotated = spec.starts_with("drive") || spec.starts_with("eden");
  const auto values = rotated ? normal_vector(kSize) : heavy_vector(kSize);
  const auto compressor = make(spec, kSize);
  std::vector<double> sum(kSize);
  double error = 0;
  for (std::uint32_t time = 0; time < kTimes; ++time) {
    // random-k draws its places from the round, the others of the client too
    const UpdateName name{kSeed, RoundNumber{time}, ClientId{time}};
    const auto out = decoded(*compressor, compressor->encode(values, name), kSize, name);
    for (std::size_t i = 0; i < kSize; ++i) sum[i] += out[i];
    error += normalised_error(values, out);
  }
  double left = 0;
  for (std::size_t i = 0; i < kSize; ++i) left += std::pow(sum[i] / kTimes - values[i], 2);
  left /= squared_norm(values);
  // Without bias the mean of T has 1/T of one encoding's error; three quarters more would be seen.
  CAPTURE(left * kTimes, error / kTimes);
  CHECK(left * kTimes < 1.75 * (error / kTimes));
}

TEST_CASE("the bias that one Hadamard transform leaves is a few percent at most") {
  // Unbiased are uniformly random rotations (Vargaftik et al. 2021, theorem 2); where a value far
  // above the others decides signs, random signs and one transform are not quite such.
  CAPTURE(kSeed);
  constexpr std::size_t kSize = 4096;
  constexpr std::uint32_t kTimes = 400;
  const auto values = heavy_vector(kSize);
  const auto compressor = make("drive", kSize);
  std::vector<double> sum(kSize);
  for (std::uint32_t time = 0; time < kTimes; ++time) {
    const UpdateName name{kSeed, RoundNumber{time}, ClientId{time}};
    const auto out = decoded(*compressor, compressor->encode(values, name), kSize, name);
    for (std::size_t i = 0; i < kSize; ++i) sum[i] += out[i];
  }
  double left = 0;
  for (std::size_t i = 0; i < kSize; ++i) left += std::pow(sum[i] / kTimes - values[i], 2);
  CHECK(std::sqrt(left / squared_norm(values)) < 0.06);  // 0.037 of it would be chance alone
}

TEST_CASE("devices of one round round independently of each other") {
  const std::string spec =
      GENERATE("fp16", "bf16", "int8", "int4", "int2", "drive", "eden-2", "rate-distortion");
  CAPTURE(kSeed, spec);
  constexpr std::size_t kSize = 4096;
  constexpr std::uint32_t kDevices = 50;
  const auto values = normal_vector(kSize);
  const auto compressor = make(spec, kSize);
  std::vector<float> mean(kSize);
  double one = 0;
  for (std::uint32_t device = 0; device < kDevices; ++device) {
    const UpdateName name{kSeed, RoundNumber{3}, ClientId{device}};
    const auto out = decoded(*compressor, compressor->encode(values, name), kSize, name);
    for (std::size_t i = 0; i < kSize; ++i) mean[i] += out[i] / kDevices;
    one += normalised_error(values, out) / kDevices;
  }
  CHECK(normalised_error(values, mean) < 1.5 * one / kDevices);
}

TEST_CASE("what a biased method keeps is a part of the update, and error feedback sends the rest") {
  // Karimireddy et al. 2019: with e = p - C(p) carried over, what is sent in T rounds differs from
  // what was given by the last residual alone, so its mean approaches the update as 1 / T.
  const std::string spec = GENERATE("sign", "top-k:0.05", "random-k:0.05+error-feedback",
                                    "int2+error-feedback", "eden-1+error-feedback",
                                    "drive+error-feedback", "rate-distortion:1.5+error-feedback");
  CAPTURE(kSeed, spec);
  constexpr std::size_t kSize = 2048;
  const auto update = normal_vector(kSize);
  const auto compressor = make(spec, kSize);
  std::vector<float> residual(kSize);
  std::vector<double> sent(kSize);
  const auto distance_after = [&](std::uint32_t from, std::uint32_t rounds) {
    for (std::uint32_t round = from; round < rounds; ++round) {
      std::vector<float> p(kSize);
      for (std::size_t i = 0; i < kSize; ++i) p[i] = update[i] + residual[i];
      const UpdateName name{kSeed, RoundNumber{round}, ClientId{1}};
      const auto out = decoded(*compressor, compressor->encode(p, name), kSize, name);
      for (std::size_t i = 0; i < kSize; ++i) {
        residual[i] = p[i] - out[i];
        sent[i] += out[i];
      }
    }
    double distance = 0;
    for (std::size_t i = 0; i < kSize; ++i) distance += std::pow(sent[i] / rounds - update[i], 2);
    return distance / squared_norm(update);
  };
  const double early = distance_after(0, 100);
  const double late = distance_after(100, 400);
  CAPTURE(early, late);
  CHECK(late < early / 3);  // 16 where the residual no longer grows
}
