#include "int8_softmax.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace covey::models {

double exponential(double x) {
  constexpr double kSmallest = -700;  // e^x stays a normal number
  if (x < kSmallest) return 0;
  constexpr double kLog2E = 1.4426950408889634;
  // ln 2 in two parts: the first has 32 bits, so n * it is exact
  constexpr double kLn2High = 0x1.62e42fefp-1;
  constexpr double kLn2Low = 0x1.473de6af278edp-34;
  const double n = std::floor(x * kLog2E + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;  // |r| <= 0.35
  // Taylor: the first term left out, r^14 / 14!, is below 5e-18
  double sum = 1;
  for (int k = 13; k >= 1; --k) sum = 1 + sum * r / k;
  return sum * std::bit_cast<double>(static_cast<std::uint64_t>(1023 + static_cast<int>(n)) << 52);
}

double logarithm(double x) {
  constexpr double kLn2 = 0.6931471805599453;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m =
      std::bit_cast<double>((bits & ~(std::uint64_t{0x7FF} << 52)) | (std::uint64_t{1023} << 52));
  constexpr double kSqrt2 = 1.4142135623730951;
  if (m > kSqrt2) {
    m /= 2;
    ++exponent;
  }
  // ln m = 2 artanh((m - 1) / (m + 1)); |f| <= 0.1716, the first term left out is f^23 / 23 < 2e-19
  const double f = (m - 1) / (m + 1);
  double sum = 0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * f * f + 1.0 / k;
  return exponent * kLn2 + 2 * f * sum;
}

SoftmaxLoss softmax_cross_entropy(float* logits, const std::int32_t* labels, std::size_t batch,
                                  std::size_t classes, bool gradient) {
  SoftmaxLoss result;
  for (std::size_t i = 0; i < batch * classes; ++i) {
    if (!std::isfinite(logits[i])) {
      return {std::numeric_limits<double>::quiet_NaN(), 0};
    }
  }
  const double scale = 1.0 / static_cast<double>(batch);
  for (std::size_t b = 0; b < batch; ++b, logits += classes) {
    const auto label = static_cast<std::size_t>(labels[b]);
    const float* largest = std::max_element(logits, logits + classes);
    const auto most = static_cast<double>(*largest);
    if (static_cast<std::size_t>(largest - logits) == label) ++result.correct;
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      sum += exponential(static_cast<double>(logits[c]) - most);
    }
    result.loss_sum += logarithm(sum) + most - static_cast<double>(logits[label]);
    if (!gradient) continue;
    for (std::size_t c = 0; c < classes; ++c) {
      const double p = exponential(static_cast<double>(logits[c]) - most) / sum;
      logits[c] = static_cast<float>((p - (c == label ? 1.0 : 0.0)) * scale);
    }
  }
  return result;
}

}  // namespace covey::models
