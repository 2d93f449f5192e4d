#pragma once

#include <covey/time.hpp>
#include <cstdint>

namespace covey::client {

/// How much a device's link brings, by the transfers that the other end acknowledged; what follows
/// for the size of pieces and for how long silence is normal. A plain value.
class LinkRate {
 public:
  /// `bytes` were on their way for `elapsed`, with nothing else to wait for.
  void measure(std::uint64_t bytes, Duration elapsed);
  /// A connection broke during a transfer: smaller pieces lose less the next time.
  void broke(std::uint32_t most);
  /// A piece came across whole.
  void came_across(std::uint32_t most);

  /// Bytes a second; kAssumed before anything was measured, never below kSlowest.
  double bytes_per_second() const;
  /// What takes about `time` on this link, between kSmallestPiece and `most`; in multiples of 4
  /// KiB.
  std::uint32_t piece(Duration time, std::uint32_t most) const;
  /// How long `bytes` may take before the link counts as dead: four times what the rate says, ten
  /// minutes at most.
  Duration patience(std::uint64_t bytes) const;

  /// Four times slower than this is still a link: 4 KiB/s, a poor 2G connection.
  static constexpr double kAssumed = 16 * 1024;
  /// A link below this (a quarter of GPRS' slowest slot) gets no model across in a round.
  static constexpr double kSlowest = 256;
  /// Less would drown the link in frames and their answers.
  static constexpr std::uint32_t kSmallestPiece = 4 * 1024;

 private:
  double bytes_ = 0, seconds_ = 0;   ///< recent ones, older ones counting less
  std::uint32_t most_ = UINT32_MAX;  ///< of a piece, since connections broke
};

}  // namespace covey::client
