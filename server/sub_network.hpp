#pragma once

#include <covey/model_spec.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <cstdint>
#include <vector>

namespace covey::server {

/// The network with the first ceil(width * units) units of every hidden layer; width in (0, 1).
/// Inputs and outputs stay. Error, a sentence, where there is no hidden layer, or one that cannot
/// be cut so.
Result<ModelSpec> narrowed(const ModelSpec& spec, double width);

/// Where the parameters of such a part lie in the whole network's vector: R^d' -> R^d, ascending
/// within each tensor. The layouts are those of `whole` and `part`, which narrowed() made of it.
std::vector<std::uint32_t> indices_of_part(const ModelSpec& whole, const ModelLayout& whole_layout,
                                           const ModelSpec& part, const ModelLayout& part_layout);

}  // namespace covey::server
