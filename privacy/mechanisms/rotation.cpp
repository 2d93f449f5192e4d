#include <bit>
#include <cmath>
#include <covey/hadamard.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <vector>

namespace covey::privacy {
namespace {

// One bit a coordinate, over the whole vector; the same for every device of a round.
std::vector<std::uint32_t> signs_of(std::size_t size, std::uint64_t seed, RoundNumber round) {
  RandomStream random(seed, RandomPurpose::kRotation, round);
  std::vector<std::uint32_t> signs(size / 32 +
                                   2);  // blocks below 32 coordinates read across a word
  for (auto& word : signs) word = random.next_u32();
  return signs;
}

// The signs of the block that starts at `start`, moved to a word's edge if it is not at one (which
// only blocks of fewer than 32 coordinates are not: all before are larger powers of two).
const std::uint32_t* signs_at(const std::vector<std::uint32_t>& signs, std::size_t start,
                              std::uint32_t& shifted) {
  if (start % 32 == 0) return signs.data() + start / 32;
  const std::uint64_t two = signs[start / 32] | (std::uint64_t{signs[start / 32 + 1]} << 32);
  shifted = static_cast<std::uint32_t>(two >> (start % 32));
  return &shifted;
}

}  // namespace

// Random signs, then the transform: the signs come first so that they and the scale 1 / sqrt(size)
// are one pass. With H = H^T = H^-1 the inverse is the transform, then the signs.
void rotate(std::span<float> values, std::uint64_t seed, RoundNumber round) {
  const HadamardKernel& kernel = hadamard_kernels().front();
  const auto signs = signs_of(values.size(), seed, round);
  for (std::size_t start = 0; start < values.size();) {
    const std::size_t size = std::bit_floor(values.size() - start);
    const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
    std::uint32_t shifted = 0;
    kernel.signs_float(values.data() + start, size, signs_at(signs, start, shifted), scale);
    kernel.transform_float(values.data() + start, size);
    start += size;
  }
}

void rotate_back(std::span<double> values, std::uint64_t seed, RoundNumber round) {
  const HadamardKernel& kernel = hadamard_kernels().front();
  const auto signs = signs_of(values.size(), seed, round);
  for (std::size_t start = 0; start < values.size();) {
    const std::size_t size = std::bit_floor(values.size() - start);
    const double scale = 1 / std::sqrt(static_cast<double>(size));
    std::uint32_t shifted = 0;
    kernel.transform_double(values.data() + start, size);
    kernel.signs_double(values.data() + start, size, signs_at(signs, start, shifted), scale);
    start += size;
  }
}

}  // namespace covey::privacy
