#include <bit>
#include <catch2/catch.hpp>
#include <covey/hadamard.hpp>
#include <covey/random.hpp>
#include <vector>

using namespace covey;

namespace {

std::vector<float> normal_vector(std::uint64_t seed, std::size_t size) {
  RandomStream random(seed, RandomPurpose::kTraining);
  std::vector<float> values(size);
  for (float& x : values) x = static_cast<float>(random.normal());
  return values;
}

// Sylvester's matrix: entry (i, j) is -1 to the number of bits that i and j share.
template <typename T>
std::vector<T> hadamard_by_definition(const std::vector<T>& values) {
  std::vector<T> out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (std::size_t j = 0; j < values.size(); ++j) {
      out[i] += std::popcount(i & j) % 2 == 0 ? values[j] : -values[j];
    }
  }
  return out;
}

}  // namespace

TEST_CASE("the transform is the Walsh-Hadamard matrix in every instruction set") {
  const std::size_t size = GENERATE(1, 2, 4, 8, 16, 32, 64, 128, 1024);
  CAPTURE(size);
  // Small whole numbers: every sum is exact.
  RandomStream random(1, RandomPurpose::kTraining);
  std::vector<float> singles(size);
  for (float& x : singles) x = static_cast<float>(random.below(201)) - 100;
  const std::vector<double> doubles(singles.begin(), singles.end());
  for (const auto& kernel : hadamard_kernels()) {
    INFO(kernel.instruction_set);
    auto a = singles;
    kernel.transform_float(a.data(), size);
    CHECK(a == hadamard_by_definition(singles));
    auto b = doubles;
    kernel.transform_double(b.data(), size);
    CHECK(b == hadamard_by_definition(doubles));
  }
}

TEST_CASE("every instruction set transforms to the same bits") {
  const std::size_t size = GENERATE(64, 4096, 8192, 32768, 65536);
  const auto values = normal_vector(size, size);
  const std::vector<double> doubles(values.begin(), values.end());
  const std::vector<std::uint32_t> signs(size / 32, 0xdeadbeef);
  auto expected = values;
  auto expected_doubles = doubles;
  hadamard_kernels().back().transform_float(expected.data(), size);
  hadamard_kernels().back().signs_float(expected.data(), size, signs.data(), 0.3f);
  hadamard_kernels().back().transform_double(expected_doubles.data(), size);
  hadamard_kernels().back().signs_double(expected_doubles.data(), size, signs.data(), 0.3);
  for (const auto& kernel : hadamard_kernels()) {
    INFO(kernel.instruction_set);
    auto a = values;
    kernel.transform_float(a.data(), size);
    kernel.signs_float(a.data(), size, signs.data(), 0.3f);
    CHECK(a == expected);
    auto b = doubles;
    kernel.transform_double(b.data(), size);
    kernel.signs_double(b.data(), size, signs.data(), 0.3);
    CHECK(b == expected_doubles);
  }
}
