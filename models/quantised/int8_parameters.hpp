#pragma once

#include <covey/bytes.hpp>
#include <covey/models/int8_network.hpp>
#include <span>

#include "int8_scratch.hpp"

namespace covey::models {

/// blob: checked by check_int8.
void load_int8(const Int8Plan& plan, const Int8Storage& storage, std::span<const std::byte> blob);
/// The weights, or their difference from `initial` where that is not empty.
SharedBytes store_int8(const Int8Plan& plan, const Int8Storage& storage,
                       std::span<const std::byte> initial);

}  // namespace covey::models
