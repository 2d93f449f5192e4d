#include <zstd.h>

#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

constexpr float kUntouched = 12345.0f;

/// An error with words that leaves `out` alone, or finite values.
bool behaves(Compressor& compressor, std::span<const std::byte> bytes, std::vector<float>& out) {
  std::ranges::fill(out, kUntouched);
  const auto result = compressor.decode(bytes, kName, out);
  if (result.ok()) return all_finite(out);
  return !result.error().message.empty() &&
         std::ranges::all_of(out, [](float x) { return x == kUntouched; });
}

}  // namespace

TEST_CASE("every decoder refuses every truncation and every byte too many") {
  const std::string spec = GENERATE(from_range(all_specs()));
  const std::size_t size = GENERATE(70, 1000);
  CAPTURE(kSeed, spec, size);
  const auto compressor = make(spec, size);
  auto bytes = copy_of(compressor->encode(heavy_vector(size), kName));
  std::vector<float> out(size);
  bool refused = true;
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const auto start = std::span(bytes).first(length);
    refused = refused && behaves(*compressor, start, out) && out[0] == kUntouched;
  }
  CHECK(refused);
  bytes.push_back(std::byte{0});
  CHECK(behaves(*compressor, bytes, out));
  CHECK(out[0] == kUntouched);
}

TEST_CASE("every decoder lives through every flipped bit") {
  const std::string spec = GENERATE(from_range(all_specs()));
  CAPTURE(kSeed, spec);
  constexpr std::size_t kSize = 203;
  const auto compressor = make(spec, kSize);
  auto bytes = copy_of(compressor->encode(heavy_vector(kSize), kName));
  std::vector<float> out(kSize);
  std::size_t misbehaved = 0;
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto flip = static_cast<std::byte>(1 << (bit % 8));
    bytes[bit / 8] ^= flip;
    misbehaved += behaves(*compressor, bytes, out) ? 0 : 1;
    bytes[bit / 8] ^= flip;
  }
  CHECK(misbehaved == 0);
}

TEST_CASE("every decoder lives through random bytes of every length that it takes") {
  const std::string spec = GENERATE(from_range(all_specs()));
  CAPTURE(kSeed, spec);
  constexpr std::size_t kSize = 203;
  const auto compressor = make(spec, kSize);
  RandomStream random(kSeed, RandomPurpose::kFault);
  std::vector<float> out(kSize);
  std::size_t misbehaved = 0;
  const SizeRange sizes = compressor->sizes();
  for (int attempt = 0; attempt < 2000; ++attempt) {
    std::vector<std::byte> bytes(sizes.min + random.below(sizes.max - sizes.min + 1));
    for (auto& byte : bytes) byte = static_cast<std::byte>(random.below(256));
    if (attempt % 2 == 0) bytes[0] = static_cast<std::byte>(random.below(2));  // a form there is
    misbehaved += behaves(*compressor, bytes, out) ? 0 : 1;
  }
  CHECK(misbehaved == 0);
}

TEST_CASE(
    "a zstd frame that claims more than its method ever writes is refused before it is unpacked") {
  constexpr std::size_t kSize = 1000;
  const auto compressor = make("int2+zstd", kSize);
  const std::size_t most = compressor->sizes().max - 1;
  std::vector<float> out(kSize);
  // Zeros pack well: a few bytes that would become a gigabyte are as easy to send.
  for (const std::size_t size : {most + 1, std::size_t{1} << 24}) {
    const std::vector<std::byte> zeros(size);
    std::vector<std::byte> bytes(1 + ZSTD_compressBound(size));
    bytes[0] = std::byte{1};
    bytes.resize(1 + ZSTD_compress(bytes.data() + 1, bytes.size() - 1, zeros.data(), size, 19));
    bytes.resize(std::clamp(bytes.size(), compressor->sizes().min, compressor->sizes().max));
    const auto result = compressor->decode(bytes, kName, out);
    REQUIRE_FALSE(result.ok());
    CHECK_THAT(result.error().message, Catch::Contains("no frame that says it holds"));
  }
}

TEST_CASE("a wrong size is named with the right one") {
  std::vector<float> out(100);
  const auto refuse = [&](const char* spec) {
    const auto result = make(spec, 100)->decode(std::vector<std::byte>(3), kName, out);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code == ErrorCode::kMalformed);
    return result.error().message;
  };
  CHECK_THAT(refuse("fp16"), Catch::Contains("3 bytes") && Catch::Contains("200"));
  CHECK_THAT(refuse("drive"), Catch::Contains("drive") && Catch::Contains("24"));
  CHECK_THAT(refuse("top-k:0.1"), Catch::Contains("top-k") && Catch::Contains(" to "));
}
