#pragma once

#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>

#include "layers/pass.hpp"

namespace covey::models {

class Planner;

}  // namespace covey::models
