#pragma once

#include <covey/client/state_folder.hpp>
#include <cstdint>
#include <memory>

namespace covey::client {

/// For tests: this process kills itself with SIGKILL in front of its n-th step, as a loss of power
/// would. A step is anything that somebody else could see: an action of the participant, a message
/// that came, a change in the state directory. One thread at a time.
class SuddenDeath {
 public:
  explicit SuddenDeath(std::uint64_t at) : at_(at) {}  ///< 1 is the first step; 0: never
  void step();

 private:
  std::uint64_t at_;
  std::uint64_t steps_ = 0;
};

/// The folder, whose every change is a step. `death` outlives it.
std::unique_ptr<StateFolder> mortal_folder(std::unique_ptr<StateFolder> folder, SuddenDeath& death);

}  // namespace covey::client
