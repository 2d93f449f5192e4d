#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace covey::privacy {

/// Calls work(i) for every i in [0, count) on `threads` threads, the caller's included, in pieces
/// of `grain`. No two calls share an i, so nothing is locked; `work` must not throw. Where the
/// system gives no more threads, those there are do it all.
template <typename Work>
void parallel_for(unsigned threads, std::size_t count, std::size_t grain, const Work& work) {
  std::atomic<std::size_t> next{0};
  const auto run = [&] {
    for (;;) {
      const std::size_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= count) return;
      const std::size_t end = std::min(begin + grain, count);
      for (std::size_t i = begin; i < end; ++i) work(i);
    }
  };
  const std::size_t pieces = (count + grain - 1) / grain;
  std::vector<std::thread> helpers;
  helpers.reserve(threads);
  for (std::size_t i = 1; i < std::min<std::size_t>(threads, pieces); ++i) {
    try {
      helpers.emplace_back(run);
    } catch (const std::system_error&) {
      break;
    }
  }
  run();
  for (auto& helper : helpers) helper.join();
}

}  // namespace covey::privacy
