#pragma once

#include <algorithm>
#include <chrono>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

namespace covey::simulation {

/// What the processes of one run ("ranks", numbered from 0) say to each other: messages of bytes,
/// in order per pair of ranks and channel. Any thread; one thread at a time reads a channel.
class RankTransport {
 public:
  virtual ~RankTransport() = default;

  virtual std::uint32_t rank() const = 0;
  virtual std::uint32_t size() const = 0;
  /// Returns when the message is under way. Error: the network says that it cannot be delivered, or
  /// `give_up` came true, which is asked now and then.
  virtual Result<void> send(std::uint32_t to, int channel, std::vector<std::byte> message,
                            const std::function<bool()>& give_up) = 0;
  /// The next message of that channel; nothing: none has come yet.
  virtual Result<std::optional<std::vector<std::byte>>> receive(
      std::uint32_t from, int channel, const std::function<bool()>& give_up) = 0;
  /// The last call. `orderly`: all ranks end so, and wait for each other.
  virtual void end(bool orderly) = 0;
};

/// Channel 0 is for control, channel 1 + n for a rank's n-th worker.
inline constexpr int kControlChannel = 0;
constexpr int channel_of_worker(std::size_t worker) { return 1 + static_cast<int>(worker); }

/// Sleeps between two looks for a message: a sixteenth of the time waited so far, so that what is
/// noticed late is little of what took long, and looking costs less than a hundredth of a
/// processor.
class LookInterval {
 public:
  using Clock = std::chrono::steady_clock;

  void sleep() const {
    constexpr Clock::duration kShortest = std::chrono::microseconds(50);
    constexpr Clock::duration kLongest = std::chrono::milliseconds(1);
    std::this_thread::sleep_for(std::clamp((Clock::now() - began_) / 16, kShortest, kLongest));
  }

 private:
  Clock::time_point began_ = Clock::now();
};

}  // namespace covey::simulation
