#pragma once

#include <covey/privacy/neighbourhood.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>

#include "bench_floor.hpp"

namespace covey {

/// One secure sum of devices in this process, by the classes that a deployment runs.
struct SecAggBench {
  std::uint32_t clients = 100;
  std::size_t dimension = 100'000;
  SecureAggregationPlan plan;  ///< max_devices and dropout are filled in
  double dropout = 0.1;        ///< share of the devices that vanish
  bool after_masking = false;  ///< they vanish when their masked update is in the sum; else before
  unsigned threads = 1;        ///< of the server
  std::uint64_t seed = 1;
};

/// Wall time of the server, seconds.
struct SecAggServerTimes {
  double advertise = 0;  ///< taking in keys, drawing the graph
  double share = 0;      ///< telling neighbours' keys, taking in shares, routing them
  double sum = 0;        ///< adding masked updates
  double collect = 0;    ///< telling survivors, taking in confirmations and shares, checking them
  privacy::UnmaskJob::Figures unmask;
  double unmask_cpu =
      0;  ///< CPU time of all threads: what unmasking takes where others want the cores
  double unmask_s() const { return unmask.reconstruct_s + unmask.agree_s + unmask.mask_s; }
};

/// CPU time of one device, milliseconds: medians over a sample.
struct SecAggDeviceTimes {
  double advertise = 0;
  double share = 0;   ///< agreements for sealing, dealing both secrets
  double agree = 0;   ///< opening shares, agreements for masks
  double encode = 0;  ///< fixed point and packing
  double mask = 0;
  double unmask = 0;  ///< checking the survivors (and their confirmations), telling shares
  double total = 0;
};

struct SecAggBenchResult {
  privacy::Neighbourhood neighbourhood;
  std::uint32_t sum_bits = 0;
  std::uint32_t dropped = 0;
  std::size_t survivors = 0;
  SecAggServerTimes server;
  SecAggDeviceTimes device;
  std::size_t device_sample = 0;
  /// Contents of the messages of one device, without the wire's framing; means over the sample.
  double bytes_up = 0;
  double bytes_down = 0;         ///< without the model
  std::size_t masked_bytes = 0;  ///< of bytes_up, the masked update
  MaskingFloor floor;
  /// Coordinates of the unmasked sum that were compared with the plain sum, all equal.
  std::size_t coordinates_checked = 0;
};

/// Error: the protocol failed (too many drop-outs, a combination without a graph), or a sum is
/// wrong.
Result<SecAggBenchResult> run_secagg_bench(const SecAggBench& bench);

}  // namespace covey
