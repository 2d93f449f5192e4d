#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

namespace covey::testing {

/// What happens to the connections through a proxy. Bytes are those of both directions together.
struct Misfortune {
  std::uint64_t seed = 1;
  std::uint64_t cut_after_min = 0;  ///< each connection is cut after a uniform number of bytes in
  std::uint64_t cut_after_max = 0;  ///< [min, max]; 0: never
  double stall_share = 0;           ///< of the cuts: the connection stays open and falls silent instead
  double corrupt_share = 0;         ///< of the cuts: a bit is flipped first, and the connection lives on
  std::uint64_t bytes_per_second = 0;  ///< a direction of a connection; 0: as fast as it goes
};

struct ProxyCounts {
  std::uint64_t connections = 0, cuts = 0, stalls = 0, corruptions = 0;
  std::uint64_t bytes_to_server = 0, bytes_to_devices = 0;
};

/// A TCP proxy on loopback between devices and a server, on a thread of its own, that does to their
/// connections what bad networks do. Which connection meets what depends on the seed and on the order in
/// which they come.
class FlakyProxy {
 public:
  /// `target`: "127.0.0.1:PORT"; it may be down at times. Throws std::runtime_error without a socket.
  FlakyProxy(const std::string& target, Misfortune misfortune);
  ~FlakyProxy();

  const std::string& address() const { return address_; }
  ProxyCounts counts() const;
  /// From now on nothing happens any more to bytes that come.
  void calm() { calm_ = true; }

 private:
  struct Loop;
  std::string address_;
  std::atomic<bool> calm_{false};
  std::unique_ptr<Loop> loop_;
  std::jthread thread_;
};

}  // namespace covey::testing
