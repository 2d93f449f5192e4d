// Input: a byte that chooses the compressor, one that chooses how many values there are, one that
// says what the rest is: an encoded update, or values to encode. Any bytes must give an error that
// leaves the output alone, or finite values; any finite values must be encoded within the sizes
// that were promised, and decoded.
#include <algorithm>
#include <cmath>
#include <covey/compression/model_delta.hpp>
#include <covey/compression/model_steps.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "compression_inputs.hpp"

namespace {

using namespace covey;
using namespace covey::compression;
using namespace covey::fuzz;

constexpr float kUntouched = 12345.0f;

void check(bool condition, const char* spec, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s: %s\n", spec, what);
  std::abort();
}

Compressor& compressor(std::size_t spec, std::size_t size) {
  static std::map<std::pair<std::size_t, std::size_t>, std::unique_ptr<Compressor>> made;
  auto& one = made[{spec, size}];
  if (!one) one = make(kSpecs[spec], size);
  return *one;
}

bool finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

void fuzz_decode(Compressor& method, const char* spec, std::span<const std::byte> bytes,
                 std::vector<float>& out) {
  std::fill(out.begin(), out.end(), kUntouched);
  const auto result = method.decode(bytes, kUpdateName, out);
  if (result.ok()) {
    check(method.sizes().contains(bytes.size()), spec, "took bytes of a size that it never writes");
    check(finite(out), spec, "decoded something that is not finite");
    return;
  }
  check(!result.error().message.empty(), spec, "refused without a word");
  check(std::all_of(out.begin(), out.end(), [](float x) { return x == kUntouched; }), spec,
        "wrote part of what it refused");
}

void fuzz_encode(Compressor& method, const char* spec, std::span<const std::byte> bytes,
                 std::vector<float>& out) {
  // as wide as bf16, so that no rounding leaves single precision
  constexpr float kLargest = 0x1.fep+127f;
  std::vector<float> values(out.size());
  if (!bytes.empty()) {
    for (std::size_t i = 0; i < 4 * values.size(); ++i) {
      std::memcpy(reinterpret_cast<std::byte*>(values.data()) + i, &bytes[i % bytes.size()], 1);
    }
  }
  for (float& x : values) x = std::isfinite(x) ? std::clamp(x, -kLargest, kLargest) : 1.0f;
  const SharedBytes encoded = method.encode(values, kUpdateName);
  check(method.sizes().contains(encoded.size()), spec, "wrote a size that it did not promise");
  check(method.decode(encoded.span(), kUpdateName, out).ok(), spec, "does not read what it wrote");
  check(finite(out), spec, "decoded its own bytes to something that is not finite");
}

/// A difference to `size` bytes of a model: an error, or a model of that length.
void fuzz_delta(std::size_t size, std::span<const std::byte> delta) {
  std::vector<std::byte> base(size);
  for (std::size_t i = 0; i < size; ++i) base[i] = static_cast<std::byte>(i * 37);
  static const std::string encoding = encode_model_delta({}, {}, 1)->encoding;
  const auto model = apply_model_delta(encoding, base, delta);
  check(!model.ok() || model.value().size() == size, "model delta",
        "made a model of another length");
}

/// Steps from a model of that many values, likewise.
void fuzz_steps(std::size_t spec, std::size_t size, std::span<const std::byte> steps) {
  const std::vector<float> base(size, 0.5f);
  const auto encoding = model_steps_encoding(*parse_compressor(kSpecs[spec]));
  const auto model = apply_model_steps(encoding, layout_of(size), kUpdateName.seed,
                                       std::as_bytes(std::span(base)), steps);
  check(!model.ok() || model.value().size() == 4 * size, kSpecs[spec],
        "steps made a model of another length");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const std::size_t spec = data[0] % std::size(kSpecs);
  const std::size_t values = kSizes[data[1] % std::size(kSizes)];
  Compressor& method = compressor(spec, values);
  std::vector<float> out(values);
  const auto rest = std::as_bytes(std::span(data + 3, size - 3));
  switch (static_cast<CompressionInput>(data[2] % 4)) {
    case CompressionInput::kUpdate:
      fuzz_encode(method, kSpecs[spec], rest, out);
      break;
    case CompressionInput::kEncoded:
      fuzz_decode(method, kSpecs[spec], rest, out);
      break;
    case CompressionInput::kModelDelta:
      fuzz_delta(values, rest);
      break;
    case CompressionInput::kModelSteps:
      fuzz_steps(spec, values, rest);
      break;
  }
  return 0;
}
