#pragma once

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <covey/assert.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/privacy/secagg_device.hpp>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "privacy/secagg/parallel.hpp"
#include "secagg_bench.hpp"
#include "secagg_bench_messages.hpp"

/// One secure sum of a benchmark, step by step. secagg_bench.cpp: until every device has its masks;
/// secagg_bench_sum.cpp: masking, summing, unmasking.
namespace covey::bench {

using privacy::MaskJob;
using privacy::SecAggDevice;
using privacy::SecAggServer;

/// Devices that answer at the same time, so that messages of so many are held at once.
inline constexpr std::size_t kBatch = 32;

class WallTime {
 public:
  explicit WallTime(double& seconds) : seconds_(seconds) {}
  WallTime(const WallTime&) = delete;
  WallTime& operator=(const WallTime&) = delete;
  ~WallTime() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// CPU time of the calling thread, or of the whole process.
class CpuTime {
 public:
  explicit CpuTime(double& milliseconds, clockid_t clock = CLOCK_THREAD_CPUTIME_ID)
      : milliseconds_(milliseconds), clock_(clock), start_(now()) {}
  CpuTime(const CpuTime&) = delete;
  CpuTime& operator=(const CpuTime&) = delete;
  ~CpuTime() { milliseconds_ += now() - start_; }

 private:
  double now() const {
    timespec time{};
    clock_gettime(clock_, &time);
    return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
  }
  double& milliseconds_;
  clockid_t clock_;
  double start_;
};

/// One device, what it costs, and what came of its last step.
struct BenchDevice {
  ClientId client{};
  bool drops = false;
  std::optional<SecAggDevice> device;
  std::shared_ptr<const MaskJob> masks;
  SecAggDeviceTimes times;
  std::size_t bytes_up = 0, bytes_down = 0;
  std::optional<Error> error;
};

class SecureSum {
 public:
  explicit SecureSum(const SecAggBench& bench) : bench_(bench) {}

  Result<SecAggBenchResult> run() {
    COVEY_TRY(prepare());
    COVEY_TRY(advertise());
    COVEY_TRY(share());
    if (!bench_.after_masking) vanish();
    COVEY_TRY(agree());
    COVEY_TRY(mask());
    if (bench_.after_masking) vanish();
    COVEY_TRY(reveal());
    COVEY_TRY(unmask());
    finish();
    return std::move(result_);
  }

 private:
  Result<void> prepare();
  void draw_drop_outs();
  Result<void> make_identities();
  Result<void> make_device(BenchDevice& device) const;
  Result<void> advertise();
  Result<void> share();
  void vanish();
  Result<void> agree();
  Result<void> encode_sample();
  Result<void> mask();
  Result<privacy::PackedFormat> checked_format() const;
  Result<SharedBytes> mask_one(std::size_t index) const;
  Result<void> reveal();
  Result<void> unmask();
  void finish();

  /// work(device) for all that are left: the sample's alone on this thread, then the others' on
  /// all.
  template <typename Work>
  Result<void> on_devices(const Work& work);
  /// For all that are left: ask(client) of the server a message, take(device, message) the answer,
  /// give(client, answer) it to the server. What the server does counts as server_s.
  template <typename Ask, typename Take, typename Give>
  Result<void> exchange(double& server_s, const Ask& ask, const Take& take, const Give& give);

  const SecAggBench& bench_;
  SecAggBenchResult result_;
  privacy::AggregationContext context_;
  privacy::SumFormat format_;
  privacy::PackedFormat checked_;  ///< the part of the sum that is compared
  std::optional<privacy::AuthorityKey> authority_;
  std::vector<std::shared_ptr<const privacy::DeviceCredentials>> credentials_;  ///< may be empty
  std::optional<SecAggServer> server_;
  std::vector<BenchDevice> devices_;
  std::vector<BenchDevice*> left_;  ///< the sample first
  std::size_t sample_ = 0;          ///< devices whose work is measured: alone, one after the other
  std::vector<std::vector<std::byte>> contributions_;  ///< the sample's; the others send them again
  std::vector<std::byte> stand_in_;  ///< where a device masks only what is compared
  std::vector<std::uint64_t> sum_, plain_;
};

template <typename Work>
Result<void> SecureSum::on_devices(const Work& work) {
  const auto run = [&](unsigned threads, std::span<BenchDevice*> devices) {
    privacy::parallel_for(threads, devices.size(), 1, [&](std::size_t i) {
      if (auto done = work(*devices[i]); !done.ok()) devices[i]->error = done.error();
    });
  };
  const std::span all(left_);
  run(1, all.first(sample_));
  run(bench_.threads, all.subspan(sample_));
  for (const BenchDevice* device : left_) {
    if (device->error) {
      return with_context(fmt::format("device {}", value_of(device->client)), *device->error);
    }
  }
  return {};
}

template <typename Ask, typename Take, typename Give>
Result<void> SecureSum::exchange(double& server_s, const Ask& ask, const Take& take,
                                 const Give& give) {
  using Message = typename std::invoke_result_t<Ask, ClientId>::value_type;
  using Answer = std::invoke_result_t<Take, BenchDevice&, const Message&>;
  std::size_t size = sample_;
  for (std::size_t begin = 0; begin < left_.size(); begin += size) {
    if (begin > 0) size = std::min(kBatch, left_.size() - begin);
    const std::span batch = std::span(left_).subspan(begin, size);
    std::vector<Message> messages;
    for (BenchDevice* device : batch) {
      const WallTime time(server_s);
      auto message = ask(device->client);
      COVEY_ASSERT(message.has_value());
      messages.push_back(std::move(*message));
    }
    std::vector<std::optional<Answer>> answers(size);
    privacy::parallel_for(begin == 0 ? 1 : bench_.threads, size, 1,
                          [&](std::size_t i) { answers[i].emplace(take(*batch[i], messages[i])); });
    for (std::size_t i = 0; i < size; ++i) {
      const auto who = [&] { return fmt::format("device {}", value_of(batch[i]->client)); };
      batch[i]->bytes_down += content_bytes(messages[i]);
      if (!answers[i]->ok()) return with_context(who(), answers[i]->error());
      const WallTime time(server_s);
      if (auto given = give(*batch[i], **answers[i]); !given.ok()) {
        return with_context(who(), given.error());
      }
    }
  }
  return {};
}

}  // namespace covey::bench
