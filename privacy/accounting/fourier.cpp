#include "accounting/fourier.hpp"

#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <numbers>
#include <utility>

namespace covey::privacy {
namespace {

using Complex = std::complex<double>;

// std::complex's own product looks for infinities, which are not met here.
Complex product(const Complex& a, const Complex& b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

void order_by_reversed_bits(std::vector<Complex>& values) {
  const std::size_t size = values.size();
  std::size_t reversed = 0;
  for (std::size_t i = 1; i < size; ++i) {
    std::size_t bit = size >> 1;
    for (; (reversed & bit) != 0; bit >>= 1) reversed ^= bit;
    reversed ^= bit;
    if (i < reversed) std::swap(values[i], values[reversed]);
  }
}

Complex power(Complex base, std::uint64_t exponent) {
  Complex result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0) result = product(result, base);
    base = product(base, base);
  }
  return result;
}

}  // namespace

void fourier_transform(std::vector<Complex>& values, bool inverse) {
  const std::size_t size = values.size();
  COVEY_ASSERT(std::has_single_bit(size));
  order_by_reversed_bits(values);
  std::vector<Complex> roots(size / 2);
  const double turn = (inverse ? 2 : -2) * std::numbers::pi / static_cast<double>(size);
  for (std::size_t k = 0; k < roots.size(); ++k) {
    roots[k] = std::polar(1.0, turn * static_cast<double>(k));
  }
  for (std::size_t half = 1; half < size; half *= 2) {
    const std::size_t stride = size / (2 * half);
    for (std::size_t block = 0; block < size; block += 2 * half) {
      for (std::size_t k = 0; k < half; ++k) {
        Complex& low = values[block + k];
        Complex& high = values[block + k + half];
        const Complex turned = product(high, roots[k * stride]);
        high = low - turned;
        low += turned;
      }
    }
  }
  if (inverse) {
    for (Complex& value : values) value /= static_cast<double>(size);
  }
}

std::vector<double> convolve_with_itself(const std::vector<double>& weights, std::uint64_t count) {
  std::vector<Complex> spectrum(weights.begin(), weights.end());
  fourier_transform(spectrum, false);
  for (Complex& value : spectrum) value = power(value, count);
  fourier_transform(spectrum, true);
  std::vector<double> composed(weights.size());
  for (std::size_t i = 0; i < composed.size(); ++i) composed[i] = spectrum[i].real();
  return composed;
}

}  // namespace covey::privacy
