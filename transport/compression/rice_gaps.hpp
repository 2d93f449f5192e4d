#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace covey::compression {

/// Which `count` of `size` positions are meant, ascending, as the gaps between them in a
/// Golomb-Rice code whose parameter is chosen to suit: for positions at random within 0.05 bits of
/// each gap's entropy (Gallager and van Voorhis 1975).
class RiceGaps {
 public:
  RiceGaps(std::size_t count, std::size_t size) : count_(count), size_(size) {}

  /// Of the code, without the parameter: the fewest and the most for any positions.
  std::size_t min_bytes() const { return (count_ + 7) / 8; }
  std::size_t max_bytes() const;
  unsigned largest_parameter() const;

  struct Choice {
    unsigned parameter = 0;
    std::size_t bytes = 0;
  };
  /// The parameter of the fewest bytes.
  Choice choose(std::span<const std::uint32_t> positions) const;
  /// Writes choice.bytes.
  static void write(std::span<const std::uint32_t> positions, const Choice& choice, std::byte* out);

  /// positions: becomes count long. Error unless `bytes` is the code of so many positions, and
  /// nothing more.
  Result<void> read(std::span<const std::byte> bytes, unsigned parameter,
                    std::vector<std::uint32_t>& positions) const;

 private:
  std::size_t count_;
  std::size_t size_;
};

}  // namespace covey::compression
