#pragma once

#include <covey/bytes.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>

namespace covey::client {

/// The assignment's model from `base`, which has the digest `delta.base`, and the bytes of `delta`.
/// Error where these are no such difference or lead to another model: then the model is fetched
/// whole. Memory for a hostile one: twice the model, which the assignment's size bounds.
Result<SharedBytes> apply_difference(const Assignment& assignment, const ModelDelta& delta,
                                     const SharedBytes& base, const SharedBytes& bytes);

}  // namespace covey::client
