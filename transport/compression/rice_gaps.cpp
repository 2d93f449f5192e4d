#include "rice_gaps.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "bit_stream.hpp"

namespace covey::compression {

// Gaps of more than 2^largest on average there are not: a larger parameter only adds bits.
unsigned RiceGaps::largest_parameter() const {
  return count_ == 0 ? 0 : static_cast<unsigned>(std::bit_width(size_ / count_));
}

// The gaps' sum is at most size - count, so the quotients' at most that over 2^parameter. The
// encoder takes the parameter that suits its positions best, so no message exceeds the least of
// these bounds.
std::size_t RiceGaps::max_bytes() const {
  std::uint64_t bits = UINT64_MAX;
  for (unsigned parameter = 0; parameter <= largest_parameter(); ++parameter) {
    const std::uint64_t gaps = std::uint64_t{size_} - count_;
    bits = std::min(bits, std::uint64_t{count_} * (parameter + 1) + (gaps >> parameter));
  }
  return static_cast<std::size_t>((bits + 7) / 8);
}

RiceGaps::Choice RiceGaps::choose(std::span<const std::uint32_t> positions) const {
  std::array<std::uint64_t, 33> quotients{};
  const unsigned largest = largest_parameter();
  std::uint32_t next = 0;
  for (const std::uint32_t position : positions) {
    const std::uint32_t gap = position - next;
    next = position + 1;
    for (unsigned parameter = 0; parameter <= largest; ++parameter) {
      quotients[parameter] += gap >> parameter;
    }
  }
  Choice best{0, SIZE_MAX};
  for (unsigned parameter = 0; parameter <= largest; ++parameter) {
    const std::uint64_t bits =
        quotients[parameter] + std::uint64_t{positions.size()} * (parameter + 1);
    const auto bytes = static_cast<std::size_t>((bits + 7) / 8);
    if (bytes < best.bytes) best = {parameter, bytes};
  }
  return best;
}

void RiceGaps::write(std::span<const std::uint32_t> positions, const Choice& choice,
                     std::byte* out) {
  BitWriter writer(out);
  std::uint32_t next = 0;
  for (const std::uint32_t position : positions) {
    writer.rice(position - next, choice.parameter);
    next = position + 1;
  }
  writer.finish();
}

Result<void> RiceGaps::read(std::span<const std::byte> bytes, unsigned parameter,
                            std::vector<std::uint32_t>& positions) const {
  if (parameter > largest_parameter()) {
    return malformed(fmt::format("the Rice parameter of its gaps is {}; it is at most {}",
                                 parameter, largest_parameter()));
  }
  BitReader reader(bytes);
  positions.resize(count_);
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const std::uint64_t gap = reader.rice(parameter, size_);
    if (gap >= size_ - next) {
      return malformed(fmt::format("position {} of {} is not below {}, or its bits end before it",
                                   i, count_, size_));
    }
    positions[i] = static_cast<std::uint32_t>(next + gap);
    next += gap + 1;
  }
  if (!reader.finished()) {
    return malformed("its bytes end before the last position or go on behind it");
  }
  return {};
}

}  // namespace covey::compression
