#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <covey/ids.hpp>

namespace covey {

/// What a random stream is for. Values are part of what makes a run reproducible: never renumber.
enum class RandomPurpose : std::uint32_t {
  kModelInitialisation = 1,
  kDataGeneration = 2,
  kPartition = 3,
  kSelection = 4,
  kTraining = 5,     ///< order of examples in local epochs
  kDeviceTraits = 6, ///< speed, bandwidth, latency of a virtual device
  kDropout = 7,      ///< which virtual devices fail, and when
  kStraggler = 8,
  kBackoff = 9,      ///< retry jitter
  kRunId = 10,
  kLoadTest = 11,
  kTrainTestSplit = 12,
  kFault = 13,
  kTrainingStep = 14,   ///< within an engine: dropout masks, stochastic rounding of steps
  kUpdateRounding = 15, ///< stochastic rounding of an update to its encoding
  kCalibration = 16,    ///< which examples show how large activations become
  kRotation = 17,       ///< signs of a rotation that updates are summed or encoded under
  kAttack = 18,         ///< who is Byzantine, and its noise
  kSubsample = 21,      ///< which coordinates enter a secure sum, or are sent at all
};

/// A counter-based random stream (Philox4x32-10, Salmon et al. 2011) named by what it is for: equal
/// (seed, purpose, round, client) give equal draws on every machine, thread and order of calls.
/// Cheap to make: no warm-up, 64 bytes. Not for secrets. Not thread-safe; make one per use.
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t seed, RandomPurpose purpose, RoundNumber round = {},
                        ClientId client = {});

  std::uint32_t next_u32() {
    if (used_ == 4) refill();
    return block_[used_++];
  }
  std::uint64_t next_u64() {
    const std::uint64_t low = next_u32();
    return low | (static_cast<std::uint64_t>(next_u32()) << 32);
  }
  /// Uniform in [0, bound), unbiased (Lemire 2019). bound >= 1.
  std::uint64_t below(std::uint64_t bound);
  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Standard normal (Box-Muller).
  double normal();
  double normal(double mean, double standard_deviation) {
    return mean + standard_deviation * normal();
  }
  double log_normal(double mean, double standard_deviation);
  /// Gamma(shape, 1) by Marsaglia and Tsang 2000. shape > 0.
  double gamma(double shape);
  /// Exponential with mean 1.
  double exponential();

  /// What the stream's numbers are made of, for code that draws many at once: block i, which is four
  /// next_u32(), is Philox4x32-10 of the counter {i mod 2^32, i / 2^32, client[0], client[1]} under `key`.
  struct Blocks {
    std::array<std::uint32_t, 2> key;
    std::array<std::uint32_t, 2> client;
  };
  Blocks blocks() const { return {key_, {counter_[2], counter_[3]}}; }

  /// Fisher-Yates.
  template <typename T>
  void shuffle(std::span<T> items) {
    for (std::size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<std::size_t>(below(i))]);
    }
  }

 private:
  void refill();

  std::array<std::uint32_t, 2> key_{};
  std::array<std::uint32_t, 4> counter_{};
  std::array<std::uint32_t, 4> block_{};
  unsigned used_ = 4;
  bool has_spare_normal_ = false;
  double spare_normal_ = 0;
};

}  // namespace covey
