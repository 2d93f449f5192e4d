#pragma once

#include <covey/bytes.hpp>
#include <covey/compression/compressor.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/ids.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The model that devices are sent, moved from round to round by compressed steps:
/// s_t = s_{t-1} + Q(w_t - s_{t-1}) in float, the same bits on every machine. Whoever holds s_b
/// reaches s_t by the steps b+1 .. t, one behind the other.
namespace covey::compression {

/// Whoever applies steps does not work longer than this many of them.
inline constexpr std::size_t kMostModelSteps = 32;

/// ModelDelta::encoding of steps compressed so: "steps:SPEC".
std::string model_steps_encoding(const CompressorSpec& spec);
bool is_model_steps(std::string_view encoding);

/// How many there are, decoding none; kMostModelSteps + 1 for more, and for bytes that are no steps.
std::size_t count_model_steps(std::span<const std::byte> steps);

/// The step of `round` as it stands among others: the round and the length (32 bits each,
/// little-endian), then the compressor's bytes.
std::vector<std::byte> frame_model_step(RoundNumber round, std::span<const std::byte> step);
/// As the steps of a run are named towards their compressor: they are nobody's update.
UpdateName model_step_name(std::uint64_t seed, RoundNumber round);

/// model: R^d, moved by one step. Error, and nothing changes, where `step` does not decode.
Result<void> apply_model_step(Compressor& compressor, const UpdateName& name,
                              std::span<const std::byte> step, std::span<float> scratch,
                              std::span<float> model);
/// base: a model of this layout in fp32. Error for an encoding that is not known, bytes that are no
/// such steps, or too many of them. The caller checks the result's hash. Memory: twice the model,
/// and what decoding takes.
Result<SharedBytes> apply_model_steps(std::string_view encoding, const ModelLayout& layout,
                                      std::uint64_t seed, std::span<const std::byte> base,
                                      std::span<const std::byte> steps);

}  // namespace covey::compression
