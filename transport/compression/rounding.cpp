#include "rounding.hpp"

#include <algorithm>
#include <cmath>

namespace covey::compression {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kRun = 1024;

/// term(i): the i-th term, 0 <= i < size.
template <typename Term>
[[gnu::always_inline]] inline double sum(std::size_t size, Term term) {
  double total = 0;
  for (std::size_t start = 0; start < size; start += kRun) {
    const std::size_t end = std::min(start + kRun, size);
    float lanes[kLanes] = {};
    std::size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
    }
    for (std::size_t lane = 0; i < end; ++i, ++lane) lanes[lane] += term(i);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

}  // namespace

double sum_of_magnitudes(const float* values, std::size_t size) {
  return sum(size, [=](std::size_t i) { return std::abs(values[i]); });
}

double sum_of_squares(const float* values, std::size_t size) {
  return sum(size, [=](std::size_t i) { return values[i] * values[i]; });
}

double sum_of_products(const float* a, const float* b, std::size_t size) {
  return sum(size, [=](std::size_t i) { return a[i] * b[i]; });
}

float largest_magnitude(const float* values, std::size_t size) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float magnitude = std::abs(values[i + lane]);
      lanes[lane] = magnitude > lanes[lane] ? magnitude : lanes[lane];
    }
  }
  for (; i < size; ++i) lanes[0] = std::max(lanes[0], std::abs(values[i]));
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace covey::compression
