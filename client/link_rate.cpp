#include <algorithm>
#include <covey/client/link_rate.hpp>

namespace covey::client {
namespace {

/// Half of what a measurement says is forgotten behind so many seconds of transfer: short against a
/// round, long against a radio's pauses.
constexpr double kHalfLifeSeconds = 8;
constexpr Duration kLongestPatience = std::chrono::minutes(10);
/// Below this, frames and round trips cost more than a cut does.
constexpr std::uint32_t kLeastAfterBreaks = 16 * 1024;

}  // namespace

void LinkRate::measure(std::uint64_t bytes, Duration elapsed) {
  if (elapsed < Duration::zero()) return;
  bytes_ += static_cast<double>(bytes);
  seconds_ += seconds(elapsed);
  if (seconds_ <= 2 * kHalfLifeSeconds) return;
  bytes_ /= 2;
  seconds_ /= 2;
}

void LinkRate::broke(std::uint32_t most) {
  most_ = std::max(kLeastAfterBreaks, std::min(most_, most) / 2);
}

void LinkRate::came_across(std::uint32_t most) {
  most_ = std::min(most_, most);
  if (most_ < most) most_ += most_ / 8;  // back to twice as much behind six pieces
}

double LinkRate::bytes_per_second() const {
  constexpr double kLeastSeconds = 1e-3;  // of less, a rate says nothing but "fast"
  if (bytes_ == 0) return kAssumed;
  return std::max(kSlowest, bytes_ / std::max(seconds_, kLeastSeconds));
}

std::uint32_t LinkRate::piece(Duration time, std::uint32_t most) const {
  const double bytes = std::min(bytes_per_second() * seconds(time), 1e9);
  const auto pieces =
      std::max<std::uint32_t>(1, static_cast<std::uint32_t>(bytes) / kSmallestPiece);
  return std::min({pieces * kSmallestPiece, most, most_});
}

Duration LinkRate::patience(std::uint64_t bytes) const {
  const double needed = 4 * static_cast<double>(bytes) / bytes_per_second();
  return from_seconds(std::min(needed, seconds(kLongestPatience)));
}

}  // namespace covey::client
