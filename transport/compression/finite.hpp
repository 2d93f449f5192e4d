#pragma once

#include <fmt/format.h>

#include <covey/result.hpp>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

namespace covey::compression {

/// Error naming the first of `bytes`' Words, floating-point numbers whose exponent is `Exponent`,
/// that is an infinity or a NaN.
template <typename Word, Word Exponent>
Result<void> check_finite(std::string_view name, std::span<const std::byte> bytes) {
  const std::size_t size = bytes.size() / sizeof(Word);
  const auto finite = [&](std::size_t i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof word, sizeof word);
    return (word & Exponent) != Exponent;
  };
  Word all = 1;  // without an early exit, so that it is vectors
  for (std::size_t i = 0; i < size; ++i) {
    all = static_cast<Word>(all & static_cast<Word>(finite(i) ? 1 : 0));
  }
  if (all != 0) return {};
  std::size_t bad = 0;
  while (finite(bad)) ++bad;
  return malformed(fmt::format("{}: value {} is not finite", name, bad));
}

}  // namespace covey::compression
