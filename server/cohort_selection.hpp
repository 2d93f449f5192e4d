#pragma once

#include <covey/ids.hpp>
#include <covey/run_config.hpp>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "device_history.hpp"

namespace covey::server {

/// A device that waits to be selected.
struct Candidate {
  ClientId client{};
  std::uint64_t num_examples = 0;
};

class OortPreferences;

/// How many devices a round is about, before the pool is known.
struct SelectionSizes {
  std::size_t start_at = 1;  ///< a round starts when so many wait
  std::size_t goal = 1;      ///< m = max(C * K, 1) of McMahan et al. 2017, Alg. 1
  std::size_t quorum =
      1;  ///< ceil(quorum * goal), at least 1: without so many no round is committed
};
/// `population`: devices of the run, what min-available-clients = 0 stands for (K).
SelectionSizes selection_sizes(const SelectionConfig& config, std::uint32_t population);
/// Where a device takes part only so often, those who are done never wait again: a round starts
/// when its cohort is there.
void start_with_cohort(SelectionSizes& sizes, double over_selection);

/// ceil(goal * over_selection), at most the pool.
std::size_t cohort_size(std::size_t goal, double over_selection, std::size_t pool);

enum class SelectionPolicy : std::uint8_t {
  kUniform,     ///< every waiting device alike
  kByExamples,  ///< sequential draws, each with probability proportional to num_examples of those
                ///< left
  kPoisson,     ///< each of the pool independently with probability `rate`
  kByAvailability,  ///< those who could work in the fewest rounds so far (Abdelmoniem et al. 2023)
  kOort,            ///< by utility for the model and speed: oort_selection.hpp
  kPowerOfChoice,  ///< of some drawn by examples those with the largest last loss (Cho et al. 2022)
};
/// A policy's name in a run file; an unknown one is a bug, since the run file's reader refuses it.
SelectionPolicy selection_policy(std::string_view name);
/// Whether a policy asks what is known of the devices.
bool needs_history(SelectionPolicy policy);

/// Names the random draws of one selection.
struct SelectionDraw {
  std::uint64_t seed = 0;
  RoundNumber round{};
  /// Abandoned attempts of this round so far. The stream is (seed, kSelection, round, attempt), so
  /// an attempt draws afresh and the first one draws what a run without failures draws.
  std::uint32_t attempt = 0;
  SelectionPolicy policy = SelectionPolicy::kUniform;
  double rate = 0;             ///< kPoisson only
  std::size_t candidates = 0;  ///< kPowerOfChoice only: d; 0: twice the cohort
  // Where the policy needs it.
  const DeviceHistory* history = nullptr;
  const OortPreferences* oort = nullptr;
};

/// Draws `count` of the pool without replacement; sorted by client. Depends only on the draw, the
/// history and the set of candidates, not on their order. Uniform: O(pool); others at most O(pool
/// log pool). Poisson: `count` says nothing, and nobody may be drawn.
std::vector<ClientId> draw_cohort(std::vector<Candidate> pool, std::size_t count,
                                  const SelectionDraw& draw);

}  // namespace covey::server
