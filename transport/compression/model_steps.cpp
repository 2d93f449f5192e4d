#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/compression/model_steps.hpp>
#include <cstring>
#include <utility>

namespace covey::compression {
namespace {

constexpr std::string_view kPrefix = "steps:";
constexpr std::size_t kStepHeader = 4 + 4;

std::uint32_t load_u32(const std::byte* at) {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

struct Step {
  RoundNumber round{};
  std::span<const std::byte> bytes;
};

/// Before anything is decoded: what is long must not be found out to be wrong at its end.
Result<std::vector<Step>> split(std::span<const std::byte> steps) {
  std::vector<Step> found;
  while (!steps.empty()) {
    if (found.size() == kMostModelSteps) {
      return malformed(
          fmt::format("the model's difference has more than {} steps", kMostModelSteps));
    }
    if (steps.size() < kStepHeader || load_u32(steps.data() + 4) > steps.size() - kStepHeader) {
      return malformed("the model's difference ends within a step");
    }
    const std::size_t length = load_u32(steps.data() + 4);
    found.push_back({RoundNumber{load_u32(steps.data())}, steps.subspan(kStepHeader, length)});
    steps = steps.subspan(kStepHeader + length);
  }
  return found;
}

}  // namespace

std::string model_steps_encoding(const CompressorSpec& spec) {
  return std::string(kPrefix) + to_string(spec);
}

bool is_model_steps(std::string_view encoding) { return encoding.starts_with(kPrefix); }

std::size_t count_model_steps(std::span<const std::byte> steps) {
  const auto found = split(steps);
  return found ? found->size() : kMostModelSteps + 1;
}

std::vector<std::byte> frame_model_step(RoundNumber round, std::span<const std::byte> step) {
  COVEY_ASSERT(step.size() <= UINT32_MAX);
  const std::uint32_t header[2] = {value_of(round), static_cast<std::uint32_t>(step.size())};
  static_assert(sizeof header == kStepHeader);
  std::vector<std::byte> framed(kStepHeader + step.size());
  std::memcpy(framed.data(), header, kStepHeader);
  std::ranges::copy(step, framed.begin() + kStepHeader);
  return framed;
}

UpdateName model_step_name(std::uint64_t seed, RoundNumber round) {
  // No device has this number, so no device's update is rounded by the same draws.
  return {seed, round, ClientId{UINT64_MAX}};
}

Result<void> apply_model_step(Compressor& compressor, const UpdateName& name,
                              std::span<const std::byte> step, std::span<float> scratch,
                              std::span<float> model) {
  COVEY_ASSERT(scratch.size() == model.size());
  COVEY_TRY(compressor.decode(step, name, scratch));
  for (std::size_t i = 0; i < model.size(); ++i) model[i] += scratch[i];
  return {};
}

Result<SharedBytes> apply_model_steps(std::string_view encoding, const ModelLayout& layout,
                                      std::uint64_t seed, std::span<const std::byte> base,
                                      std::span<const std::byte> steps) {
  if (!is_model_steps(encoding)) {
    return malformed(fmt::format("a model's difference encoded as \"{}\", which are no steps",
                                 encoding.substr(0, 40)));
  }
  COVEY_ASSIGN(const CompressorSpec spec, parse_compressor(encoding.substr(kPrefix.size())));
  if (base.size() != layout.size() * sizeof(float)) {
    return malformed(fmt::format("steps from a model of {} bytes; the plan's has {} values in fp32",
                                 base.size(), layout.size()));
  }
  COVEY_ASSIGN(const auto found, split(steps));
  COVEY_ASSIGN(const auto compressor, make_compressor(spec, layout));
  // Aligned for float: vector's memory is for any type.
  std::vector<std::byte> bytes(base.begin(), base.end());
  const std::span<float> model(reinterpret_cast<float*>(bytes.data()), layout.size());
  ParameterVector scratch(layout.size());
  for (const Step& step : found) {
    COVEY_TRY(apply_model_step(*compressor, model_step_name(seed, step.round), step.bytes,
                               scratch.span(), model));
  }
  return SharedBytes(std::move(bytes));
}

}  // namespace covey::compression
