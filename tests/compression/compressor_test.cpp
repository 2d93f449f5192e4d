#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

TEST_CASE("every compressor decodes what it encodes, in as many bytes as it says") {
  const std::string spec = GENERATE(from_range(all_specs()));
  const std::size_t size =
      GENERATE(0, 1, 2, 7, 8, 9, 63, 64, 65, 100, 257, 2048, 5000, 16384, 20001);
  CAPTURE(kSeed, spec, size);
  const auto compressor = make(spec, size);
  for (const auto& values : {normal_vector(size), heavy_vector(size)}) {
    const SharedBytes bytes = compressor->encode(values, kName);
    CAPTURE(bytes.size(), compressor->sizes().min, compressor->sizes().max);
    CHECK(compressor->sizes().contains(bytes.size()));
    CHECK(all_finite(decoded(*compressor, bytes, size)));
  }
}

TEST_CASE(
    "equal updates of one name give equal bytes, and a used compressor the same as a new one") {
  const std::string spec = GENERATE(from_range(all_specs()));
  CAPTURE(kSeed, spec);
  const auto values = heavy_vector(5000);
  const auto used = make(spec, values.size());
  const SharedBytes first = used->encode(values, kName);
  const auto out = decoded(*used, first, values.size());
  // other work in between: another round, another device
  const UpdateName other{kSeed, RoundNumber{8}, ClientId{1}};
  decoded(*used, used->encode(normal_vector(values.size()), other), values.size(), other);
  CHECK(copy_of(used->encode(values, kName)) == copy_of(first));
  CHECK(copy_of(make(spec, values.size())->encode(values, kName)) == copy_of(first));
  CHECK(decoded(*used, first, values.size()) == out);
}

TEST_CASE("an update of zeros is decoded as zeros") {
  const std::string spec = GENERATE(from_range(all_specs()));
  const std::size_t size = GENERATE(1, 70, 20000);
  CAPTURE(spec, size);
  const std::vector<float> zeros(size);
  CHECK(round_trip(spec, zeros) == zeros);
}

TEST_CASE("updates of any magnitude are decoded as finite values") {
  const std::string spec = GENERATE(from_range(all_specs()));
  const float magnitude =
      GENERATE(1e-45f, 1e-38f, 1e-20f, 1.0f, 1e15f, 1e25f, 3.0e38f, 0x1.fffffep+127f);
  CAPTURE(kSeed, spec, magnitude);
  std::vector<float> values(320);
  RandomStream random(kSeed, RandomPurpose::kFault);
  for (float& x : values) x = magnitude * static_cast<float>(random.uniform(-1, 1));
  values[11] = magnitude;
  // core's bf16 rounds what is beyond its largest number to infinity, which no decoder lets through
  if (spec.starts_with("bf16") && magnitude > 3.38e38f) return;
  CHECK(all_finite(round_trip(spec, values)));
}

TEST_CASE("methods that say so lose less than the update holds, whatever it holds") {
  // A contraction: what error feedback needs (Karimireddy et al. 2019, assumption A).
  const std::string spec =
      GENERATE("bf16+error-feedback", "fp16+error-feedback", "int8+error-feedback",
               "int4+error-feedback", "int2+error-feedback", "sign", "drive+error-feedback",
               "eden-1+error-feedback", "eden-4+error-feedback", "top-k:0.03",
               "random-k:0.7+error-feedback", "rate-distortion:1+error-feedback");
  CAPTURE(kSeed, spec);
  std::vector<float> one_large(3000, 1e-4f);
  one_large[1234] = 3;
  std::vector<float> alternating(3000, 0.5f);
  for (std::size_t i = 0; i < alternating.size(); i += 2) alternating[i] = -0.5f;
  for (const auto& values : {normal_vector(3000), heavy_vector(3000), one_large, alternating}) {
    CHECK(normalised_error(values, round_trip(spec, values)) < 1);
  }
}

TEST_CASE("a spec that parse_compressor would not give is refused") {
  const ModelLayout layout = layout_of(10);
  for (const CompressorSpec& spec :
       {CompressorSpec{.kind = CompressorKind::kLinear, .bits = 3},
        CompressorSpec{.kind = CompressorKind::kEden, .bits = 0},
        CompressorSpec{.kind = CompressorKind::kEden, .bits = 5},
        CompressorSpec{.kind = CompressorKind::kTopK, .parameter = 0},
        CompressorSpec{.kind = CompressorKind::kRandomK, .parameter = 1.5},
        CompressorSpec{.kind = CompressorKind::kRateDistortion, .parameter = -1},
        CompressorSpec{
            .kind = CompressorKind::kRateDistortion, .parameter = 2, .error_feedback = true},
        CompressorSpec{.kind = static_cast<CompressorKind>(99)}}) {
    const auto made = make_compressor(spec, layout);
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().code == ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("a model too large to number its values is refused by name") {
  ModelLayout layout;
  layout.append("weight", {65536, 32768});
  const auto made = make_compressor(*parse_compressor("eden-2"), layout);
  REQUIRE_FALSE(made.ok());
  CHECK_THAT(made.error().message, Catch::Contains("eden-2") && Catch::Contains("2147483648"));
}
