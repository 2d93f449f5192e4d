// How fast updates enter a sum: 199,210 parameters is the 2NN and 1,663,370 the CNN of McMahan et
// al. 2017. The plain double sum, which depends on the order of its terms, is the yardstick.

#include <benchmark/benchmark.h>

#include <covey/random.hpp>
#include <covey/strategies/exact_sum.hpp>
#include <vector>

#include "exact_sum_kernels.hpp"

namespace {

using namespace covey;
using namespace covey::strategies;

std::vector<float> random_update(std::size_t size) {
  RandomStream random(1, RandomPurpose::kTraining);
  std::vector<float> update(size);
  for (float& v : update) v = static_cast<float>(0.01 * random.normal());
  return update;
}

void report(benchmark::State& state) {
  state.counters["parameters/s"] = benchmark::Counter(
      static_cast<double>(state.range(0)), benchmark::Counter::kIsIterationInvariantRate);
}

void exact_sum_add(benchmark::State& state) {
  const auto update = random_update(static_cast<std::size_t>(state.range(0)));
  ExactSum sum(update.size());
  for (auto _ : state) {
    if (sum.terms() == ExactSum::kMaxTerms) sum.clear();
    const auto added = sum.add(update, 600);
    if (!added.ok()) state.SkipWithError("refused");
  }
  report(state);
}

void double_sum_add(benchmark::State& state) {
  const auto update = random_update(static_cast<std::size_t>(state.range(0)));
  std::vector<double> sum(update.size());
  for (auto _ : state) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += 600 * static_cast<double>(update[i]);
    benchmark::ClobberMemory();
  }
  report(state);
}

void exact_sum_read(benchmark::State& state) {
  const auto update = random_update(static_cast<std::size_t>(state.range(0)));
  ExactSum sum(update.size());
  if (!sum.add(update, 600).ok()) state.SkipWithError("refused");
  std::vector<double> out(update.size());
  for (auto _ : state) {
    sum.read(out);
    benchmark::ClobberMemory();
  }
  report(state);
}

// Each instruction set of this processor, in cache (4096 coordinates: 80 KiB).
void accumulate_kernel(benchmark::State& state, const ExactSumKernels& kernels) {
  const auto update = random_update(static_cast<std::size_t>(state.range(0)));
  std::vector<std::int64_t> high(update.size()), low(update.size());
  for (auto _ : state) {
    kernels.accumulate(update.data(), 600, update.size(), high.data(), low.data());
    benchmark::ClobberMemory();
  }
  report(state);
}

const bool registered = [] {
  for (const auto& kernels : exact_sum_kernels()) {
    benchmark::RegisterBenchmark(
        (std::string("accumulate_kernel/") + kernels.instruction_set).c_str(),
        [&kernels](benchmark::State& state) { accumulate_kernel(state, kernels); })
        ->Arg(4096);
  }
  return true;
}();

BENCHMARK(exact_sum_add)->Arg(199'210)->Arg(1'663'370);
BENCHMARK(double_sum_add)->Arg(199'210)->Arg(1'663'370);
BENCHMARK(exact_sum_read)->Arg(199'210)->Arg(1'663'370);

}  // namespace
