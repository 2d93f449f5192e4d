// What privacy costs a device and the server: 100,000 and 1,000,000 coordinates, as in the
// measurements of secure aggregation (a device's whole budget at 100,000 is 8 ms), and 159,010
// draws of noise for the 2NN of McMahan et al. 2017 at 28 x 28.

#include <benchmark/benchmark.h>

#include <covey/privacy/clipping.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/samplers.hpp>
#include <covey/random.hpp>
#include <numeric>
#include <vector>

#include "secagg/shamir.hpp"

namespace {

using namespace covey;
using namespace covey::privacy;

constexpr std::uint32_t kDevices = 500;

std::vector<float> random_update(std::size_t size) {
  RandomStream random(1, RandomPurpose::kTraining);
  std::vector<float> update(size);
  for (float& x : update) x = static_cast<float>(0.01 * random.normal());
  return update;
}

SumFormat format_of(benchmark::State& state, bool rotation, const PrivacyPlan& privacy = {}) {
  SecureAggregationPlan plan;
  plan.bits = static_cast<std::uint32_t>(state.range(1));
  plan.max_weight = 600;
  plan.max_devices = kDevices;
  plan.rotation = rotation;
  return SumFormat::make(plan, privacy, static_cast<std::size_t>(state.range(0)),
                         privacy.enabled() ? 0 : 2)
      .value();
}

void report(benchmark::State& state) {
  state.counters["coordinates/s"] = benchmark::Counter(
      static_cast<double>(state.range(0)), benchmark::Counter::kIsIterationInvariantRate);
}

void encode_with(benchmark::State& state, const SumFormat& format) {
  const auto update = random_update(format.dimension);
  const std::vector<double> scalars(format.num_scalars, 1);
  const auto secrets = seeded_secrets(1, RoundNumber{1}, ClientId{1});
  for (auto _ : state) {
    auto encoded = encode_contribution(format, update, 600, scalars,
                                       {1, RoundNumber{1}, ClientId{1}}, *secrets);
    if (!encoded.ok()) state.SkipWithError("refused");
    benchmark::DoNotOptimize(encoded);
  }
  report(state);
}

void encode(benchmark::State& state) { encode_with(state, format_of(state, false)); }
void encode_rotated(benchmark::State& state) { encode_with(state, format_of(state, true)); }

void encode_noised(benchmark::State& state, DeviceNoise noise) {
  // Ten lattice steps: 2 C / (2^b - 2) each, C = 1.
  const double stddev = 20.0 / static_cast<double>((std::uint64_t{1} << state.range(1)) - 2);
  encode_with(state, format_of(state, true, {ClipKind::kFlat, 10, noise, stddev}));
}

void decode(benchmark::State& state, bool rotation) {
  const auto format = format_of(state, rotation);
  const auto secrets = seeded_secrets(1, RoundNumber{1}, ClientId{1});
  const auto encoded = encode_contribution(format, random_update(format.dimension), 600,
                                           std::vector<double>(format.num_scalars, 1),
                                           {1, RoundNumber{1}, ClientId{1}}, *secrets);
  std::vector<std::uint64_t> words(format.packed.words());
  add_packed(format.packed, encoded.value().packed, words);
  for (auto _ : state) {
    auto sum = decode_sum(format, words, 1, 1, RoundNumber{1});
    if (!sum.ok()) state.SkipWithError("refused");
    benchmark::DoNotOptimize(sum);
  }
  report(state);
}

void rotate_update(benchmark::State& state) {
  auto update = random_update(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    rotate(update, 1, RoundNumber{1});
    benchmark::ClobberMemory();
  }
  report(state);
}

void rotate_sum_back(benchmark::State& state) {
  std::vector<double> sum(static_cast<std::size_t>(state.range(0)), 1);
  for (auto _ : state) {
    rotate_back(sum, 1, RoundNumber{1});
    benchmark::ClobberMemory();
  }
  report(state);
}

void clip(benchmark::State& state) {
  auto update = random_update(static_cast<std::size_t>(state.range(0)));
  const PrivacyPlan plan{ClipKind::kFlat, 1, DeviceNoise::kNone, 0};
  for (auto _ : state) {
    if (!clip_update(plan, {}, update).ok()) state.SkipWithError("refused");
  }
  report(state);
}

void pack_coordinates(benchmark::State& state) {
  const PackedFormat format{static_cast<std::uint32_t>(state.range(1)),
                            static_cast<std::size_t>(state.range(0))};
  const std::vector<std::int64_t> values(format.coordinates, 3);
  std::vector<std::uint64_t> words(format.words());
  for (auto _ : state) {
    pack(format, values, words);
    benchmark::ClobberMemory();
  }
  report(state);
}

void unpack_coordinates(benchmark::State& state) {
  const PackedFormat format{static_cast<std::uint32_t>(state.range(1)),
                            static_cast<std::size_t>(state.range(0))};
  std::vector<std::int64_t> values(format.coordinates, 3);
  std::vector<std::uint64_t> words(format.words());
  pack(format, values, words);
  for (auto _ : state) {
    unpack(format, words, values);
    benchmark::ClobberMemory();
  }
  report(state);
}

// Argument: the standard deviation, in thousandths.
void draw_noise(benchmark::State& state, DeviceNoise noise) {
  const double stddev = static_cast<double>(state.range(0)) / 1000;
  const auto secrets = system_secrets();
  NoiseSampler sampler(*secrets);
  std::vector<std::int64_t> draws(159010);
  for (auto _ : state) {
    if (noise == DeviceNoise::kSkellam) {
      sampler.skellam(stddev * stddev, draws);
    } else {
      sampler.discrete_gaussian(stddev, draws);
    }
  }
  state.counters["draws/s"] = benchmark::Counter(static_cast<double>(draws.size()),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void draw_gaussian(benchmark::State& state) {
  const auto secrets = system_secrets();
  NoiseSampler sampler(*secrets);
  for (auto _ : state) benchmark::DoNotOptimize(sampler.gaussian(1.5));
}

std::vector<std::uint32_t> points_of(benchmark::State& state) {
  std::vector<std::uint32_t> points(static_cast<std::size_t>(state.range(0)));
  std::iota(points.begin(), points.end(), 1);
  return points;
}

// Argument: shares; two thirds of them reconstruct.
void shamir_split(benchmark::State& state) {
  const auto points = points_of(state);
  const auto secrets = system_secrets();
  const Secret<32> secret;
  for (auto _ : state) {
    auto shares =
        split(secret, static_cast<std::uint32_t>(2 * points.size() / 3 + 1), points, *secrets);
    if (!shares.ok()) state.SkipWithError("refused");
    benchmark::DoNotOptimize(shares);
  }
}

void shamir_coefficients(benchmark::State& state) {
  auto points = points_of(state);
  points.resize(2 * points.size() / 3 + 1);
  for (auto _ : state) benchmark::DoNotOptimize(Reconstruction(points));
}

void shamir_combine(benchmark::State& state) {
  auto points = points_of(state);
  const auto threshold = 2 * points.size() / 3 + 1;
  const auto secrets = system_secrets();
  const auto shares =
      split(Secret<32>{}, static_cast<std::uint32_t>(threshold), points, *secrets).value();
  points.resize(threshold);
  const Reconstruction reconstruction(points);
  std::vector<const ShareBytes*> given;
  for (std::size_t i = 0; i < threshold; ++i) given.push_back(&shares[i]);
  for (auto _ : state) {
    auto secret = reconstruction.combine(given);
    if (!secret.ok()) state.SkipWithError("refused");
    benchmark::DoNotOptimize(secret);
  }
}

void sizes_and_bits(benchmark::internal::Benchmark* bench) {
  bench->ArgsProduct({{100'000, 1'000'000}, {8, 16, 24}})->Unit(benchmark::kMillisecond);
}
void sizes(benchmark::internal::Benchmark* bench) {
  bench->Arg(100'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);
}
void deviations(benchmark::internal::Benchmark* bench) {
  bench->Arg(500)->Arg(3'700)->Arg(50'000)->Arg(3'000'000)->Unit(benchmark::kMillisecond);
}
void share_counts(benchmark::internal::Benchmark* bench) {
  bench->Arg(44)->Arg(100)->Arg(500)->Arg(1000)->Unit(benchmark::kMicrosecond);
}

BENCHMARK(encode)->Apply(sizes_and_bits);
BENCHMARK(encode_rotated)->Apply(sizes_and_bits);
BENCHMARK_CAPTURE(encode_noised, discrete_gaussian, DeviceNoise::kDiscreteGaussian)
    ->Apply(sizes_and_bits);
BENCHMARK_CAPTURE(encode_noised, skellam, DeviceNoise::kSkellam)->Apply(sizes_and_bits);
BENCHMARK_CAPTURE(decode, plain, false)->Apply(sizes_and_bits);
BENCHMARK_CAPTURE(decode, rotated, true)->Apply(sizes_and_bits);
BENCHMARK(rotate_update)->Apply(sizes);
BENCHMARK(rotate_sum_back)->Apply(sizes);
BENCHMARK(clip)->Apply(sizes);
BENCHMARK(pack_coordinates)->ArgsProduct({{100'000, 1'000'000}, {17, 25, 33}});
BENCHMARK(unpack_coordinates)->ArgsProduct({{100'000, 1'000'000}, {17, 25, 33}});
BENCHMARK_CAPTURE(draw_noise, discrete_gaussian, DeviceNoise::kDiscreteGaussian)->Apply(deviations);
BENCHMARK_CAPTURE(draw_noise, skellam, DeviceNoise::kSkellam)->Apply(deviations);
BENCHMARK(draw_gaussian);
BENCHMARK(shamir_split)->Apply(share_counts);
BENCHMARK(shamir_coefficients)->Apply(share_counts);
BENCHMARK(shamir_combine)->Apply(share_counts);

}  // namespace
