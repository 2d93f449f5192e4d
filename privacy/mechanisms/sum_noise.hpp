#pragma once

#include <covey/privacy/secret.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

/// Gaussian noise on a sum of clipped contributions, without the leaks of floating point.
namespace covey::privacy {

/// One Gaussian that enters a sum, or leaves it.
struct NoiseTerm {
  std::unique_ptr<SecretSource> secrets;
  bool subtract = false;
};

/// How large noise of multiplier z is for contributions of norm S in R^d.
struct NoiseScale {
  double noise_multiplier = 0;
  double clip_norm =
      0;  ///< S, or what a contribution can reach behind its rounding for a secure sum
};

/// sum += each of the terms, N(0, sigma^2) in every coordinate, sigma = z S. The sum is first
/// rounded to a lattice 2^-k with sigma / 2^-k near 2^30, on which discrete Gaussians are added as
/// integers: the result's low bits then say nothing of the sum's (Mironov 2012). Rounding may move
/// a contribution's effect by sqrt(d) 2^-k, for which sigma is made that much larger. The same
/// terms give the same noise again. Error: a generator failed, or the sum is not one of clipped
/// contributions.
Result<void> add_noise(std::span<double> sum, const NoiseScale& scale,
                       std::vector<NoiseTerm> terms);

/// The noise of one node of a binary tree over rounds: a ChaCha20 stream of SHA-256(seed, level,
/// index), so that it can be made again when the node leaves the prefix.
std::unique_ptr<SecretSource> node_secrets(const Secret<32>& seed, std::uint32_t level,
                                           std::uint64_t index);

/// The nodes by which the prefix sum's noise of round t >= 1 differs from that of t - 1: the node
/// that t completes enters, those below it leave (Kairouz et al. 2021, Algorithm 1). The
/// prefix 1..t thus carries one node for each binary digit 1 of t.
std::vector<NoiseTerm> tree_step(const Secret<32>& seed, std::uint64_t round);

}  // namespace covey::privacy
