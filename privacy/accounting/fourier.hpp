#pragma once

#include <complex>
#include <cstdint>
#include <vector>

namespace covey::privacy {

/// In place, sum_j x_j exp(-2 pi i j k / N) (inverse: +, and divided by N); N a power of two, at
/// least 1. Cooley and Tukey 1965, radix 2. O(N) further memory.
void fourier_transform(std::vector<std::complex<double>>& values, bool inverse);

/// The `count`-fold circular convolution of `weights` (a power of two of them, summing to about 1)
/// with itself. Absolute error of each value about count * 2^-53.
std::vector<double> convolve_with_itself(const std::vector<double>& weights, std::uint64_t count);

}  // namespace covey::privacy
