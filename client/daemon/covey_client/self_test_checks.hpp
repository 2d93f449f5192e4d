#pragma once

#include <covey/result.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace covey::client {

/// Each tells what it found, or what is wrong.

// self_test_crypto.cpp: published test vectors through the code that rounds use.
Result<std::string> check_hash();
Result<std::string> check_mask_ciphers();
Result<std::string> check_key_agreement();
Result<std::string> check_signatures();

/// A preset trained for two steps on data that are the same everywhere.
struct TrainingCase {
  std::string_view preset;
  std::string_view precision;
  std::vector<std::uint32_t> shape;
  std::uint32_t classes = 0;
  std::uint32_t vocabulary = 0;  ///< the features are tokens below this; 0: they are numbers
  double loss = 0;         ///< mean over the steps; this and the norm to a part in a thousand,
  double update_norm = 0;  ///< in bfloat16 to a part in a hundred
  std::string_view update_digest;  ///< of integer modes, whose bits are the same everywhere
};

// self_test_training.cpp
const std::vector<TrainingCase>& training_cases();
/// Bytes that a process is to have free for it. Error: this build cannot do it.
Result<std::uint64_t> memory_needed(const TrainingCase& one);
Result<std::string> check_training(const TrainingCase& one);

}  // namespace covey::client
