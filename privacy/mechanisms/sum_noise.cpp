#include "mechanisms/sum_noise.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/digest.hpp>
#include <covey/privacy/samplers.hpp>
#include <string_view>

#include "secagg/chacha_stream.hpp"

namespace covey::privacy {
namespace {

constexpr int kStddevBits = 30;
/// Coordinates that are noised together: 32 KiB of integers for a sum and its noise each.
constexpr std::size_t kChunk = 4096;
/// With noise of 2^31 in a step's up to 30 terms, 64 bits are enough for a sum below it.
constexpr double kLargestPoint = 0x1p61;

class NodeSecrets final : public SecretSource {
 public:
  explicit NodeSecrets(const Secret<32>& key) : stream_(key.span()) {}
  Result<void> fill(std::span<std::byte> bytes) override {
    stream_.fill(bytes);
    return {};
  }

 private:
  ChaChaStream stream_;
};

/// A term with its sampler, which lives as long as the sum is worked through.
struct Source {
  explicit Source(NoiseTerm& term) : sampler(*term.secrets), subtract(term.subtract) {}
  NoiseSampler sampler;
  bool subtract;
};

}  // namespace

Result<void> add_noise(std::span<double> sum, const NoiseScale& scale,
                       std::vector<NoiseTerm> terms) {
  COVEY_ASSERT(scale.noise_multiplier > 0 && scale.clip_norm > 0);
  const double roughly = scale.noise_multiplier * scale.clip_norm;
  const double quantum = std::ldexp(1.0, std::ilogb(roughly) - kStddevBits);
  const double norm = scale.clip_norm + std::sqrt(static_cast<double>(sum.size())) * quantum;
  const double stddev = scale.noise_multiplier * norm / quantum;
  const auto outside = [quantum](double x) { return !(std::abs(x) < quantum * kLargestPoint); };
  if (const auto found = std::ranges::find_if(sum, outside); found != sum.end()) {
    return failed(
        fmt::format("coordinate {} of a round's sum is {}, more than contributions of norm {} make",
                    found - sum.begin(), *found, scale.clip_norm));
  }
  std::vector<std::unique_ptr<Source>> sources;
  for (NoiseTerm& term : terms) sources.push_back(std::make_unique<Source>(term));

  std::vector<std::int64_t> points(std::min(kChunk, sum.size())), noise(points.size());
  for (std::size_t start = 0; start < sum.size(); start += kChunk) {
    const auto part = sum.subspan(start, std::min(kChunk, sum.size() - start));
    for (std::size_t i = 0; i < part.size(); ++i) points[i] = std::llround(part[i] / quantum);
    for (const auto& source : sources) {
      source->sampler.discrete_gaussian(stddev, std::span(noise).first(part.size()));
      const std::int64_t sign = source->subtract ? -1 : 1;
      for (std::size_t i = 0; i < part.size(); ++i) points[i] += sign * noise[i];
    }
    for (std::size_t i = 0; i < part.size(); ++i)
      part[i] = static_cast<double>(points[i]) * quantum;
  }
  wipe(std::as_writable_bytes(std::span(noise)));
  for (const auto& source : sources) COVEY_TRY(source->sampler.status());
  return {};
}

std::unique_ptr<SecretSource> node_secrets(const Secret<32>& seed, std::uint32_t level,
                                           std::uint64_t index) {
  constexpr std::string_view kLabel = "covey tree node v1";
  Sha256 hash;
  hash.update(std::as_bytes(std::span(kLabel)));
  hash.update(seed.span());
  std::array<std::byte, 12> place{};  // little-endian level, index
  for (std::size_t i = 0; i < 4; ++i) place[i] = static_cast<std::byte>(level >> (8 * i) & 0xff);
  for (std::size_t i = 0; i < 8; ++i)
    place[4 + i] = static_cast<std::byte>(index >> (8 * i) & 0xff);
  hash.update(place);
  return std::make_unique<NodeSecrets>(Secret<32>(hash.finish().bytes));
}

std::vector<NoiseTerm> tree_step(const Secret<32>& seed, std::uint64_t round) {
  COVEY_ASSERT(round >= 1);
  const auto completed = static_cast<std::uint32_t>(std::countr_zero(round));
  std::vector<NoiseTerm> terms;
  // Node i of a level covers rounds (i - 1) 2^level + 1 to i 2^level.
  terms.push_back({node_secrets(seed, completed, round >> completed), false});
  for (std::uint32_t level = 0; level < completed; ++level) {
    terms.push_back({node_secrets(seed, level, (round - 1) >> level), true});
  }
  return terms;
}

}  // namespace covey::privacy
