#pragma once

#include <covey/bytes.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>
#include <cstdint>

namespace covey::client {

/// Steps times bytes of the model that a device applies on the thread that also says it is alive:
/// some 10 s of a small processor, which is far below the service's watchdog.
inline constexpr std::uint64_t kMostDifferenceWork = std::uint64_t{256} << 20;

/// The assignment's model from `base`, which has the digest `delta.base`, and the bytes of `delta`.
/// Error where these are no such difference or lead to another model: then the model is fetched
/// whole. Memory for a hostile one: twice the model, which the assignment's size bounds.
Result<SharedBytes> apply_difference(const Assignment& assignment, const ModelDelta& delta,
                                     const SharedBytes& base, const SharedBytes& bytes);

}  // namespace covey::client
