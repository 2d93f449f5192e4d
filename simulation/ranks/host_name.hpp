#pragma once

#include <unistd.h>

#include <array>
#include <string>

namespace covey::simulation {

/// This machine's name, as ranks tell it each other.
inline std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown host";
  return name.data();
}

}  // namespace covey::simulation
