#include <catch2/catch.hpp>
#include <covey/encoding.hpp>
#include <covey/random.hpp>
#include <cstring>

#include "pipeline_fixture.hpp"

using namespace covey;
using namespace covey::server;
using namespace covey::server::testing;

TEST_CASE("updates are decoded by the plan's compressor, whatever their address") {
  ModelLayout layout;
  layout.append("dense1.weight", {3, 2});
  layout.append("dense1.bias", {2});
  const std::vector<float> update{0.5f, -2.0f, 0.25f, 1.0f, 0.0f, 0.75f, 3.0f, -1.5f};
  const auto encoding = GENERATE(Encoding::kFp32, Encoding::kBf16, Encoding::kInt8);
  const bool odd_address = GENERATE(false, true);
  CAPTURE(to_string(encoding), odd_address);
  UpdatePipeline::Format format;
  format.layout = layout;
  format.compressors = offered(layout, to_string(encoding));
  SharedBytes bytes = encode(encoding, layout, update);
  std::vector<float> decoded(layout.size());
  REQUIRE(decode(encoding, layout, bytes.span(), decoded).ok());
  if (odd_address) bytes = misaligned(bytes);
  SECTION("by a strategy of sums") {
    auto pipeline = *UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                                          ParameterVector(layout.size()), {}, format);
    REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(bytes, 3), bytes));
    REQUIRE(pipeline.apply().ok());
    CHECK(values_of(pipeline.model()) == decoded);
  }
  SECTION("by one that sees each update") {
    auto pipeline = *UpdatePipeline::make(std::make_unique<FirstStrategy>(),
                                          ParameterVector(layout.size()), {}, format);
    REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(bytes), bytes));
    const auto other = encode(encoding, layout, std::vector<float>(layout.size(), 9.0f));
    REQUIRE_FALSE(pipeline.judge(ClientId{2}, report_for(other), other));
    REQUIRE(pipeline.apply().ok());
    CHECK(values_of(pipeline.model()) == decoded);
  }
  SECTION("one of another encoding is of the wrong size") {
    const Encoding wrong = encoding == Encoding::kBf16 ? Encoding::kFp32 : Encoding::kBf16;
    auto pipeline = *UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                                          ParameterVector(layout.size()), {}, format);
    const auto other = encode(wrong, layout, update);
    const auto rejection = pipeline.judge(ClientId{1}, report_for(other), other);
    REQUIRE(rejection);
    CHECK(rejection->first == RejectReason::kWrongSize);
    CHECK_THAT(rejection->second, Catch::Contains(std::string(to_string(encoding))));
  }
}

TEST_CASE("an encoded update with a bad scale or value is refused by name and changes nothing") {
  ModelLayout layout;
  layout.append("dense1.weight", {2, 2});
  layout.append("dense1.bias", {2});
  UpdatePipeline::Format format;
  format.layout = layout;
  auto pipeline_of = [&](Encoding encoding) {
    format.compressors = offered(layout, to_string(encoding));
    return *UpdatePipeline::make(std::make_unique<MeanStrategy>(), ParameterVector(layout.size()),
                                 {}, format);
  };
  const auto altered = [&](Encoding encoding, std::size_t at, std::uint8_t value) {
    const auto good = encode(encoding, layout, std::vector<float>(layout.size(), 0.5f));
    std::vector<std::byte> bytes(good.span().begin(), good.span().end());
    bytes[at] = std::byte{value};
    return SharedBytes(std::move(bytes));
  };
  struct Case {
    const char* what;
    Encoding encoding;
    SharedBytes bytes;
    RejectReason reason;
  };
  const std::vector<Case> cases{
      {"a negative scale", Encoding::kInt8, altered(Encoding::kInt8, 3, 0xbf),
       RejectReason::kMalformed},
      {"a scale of 24 bits", Encoding::kInt8, altered(Encoding::kInt8, 0, 0x01),
       RejectReason::kMalformed},
      {"the value -128", Encoding::kInt8, altered(Encoding::kInt8, 8, 0x80),
       RejectReason::kMalformed},
      {"an infinite bf16", Encoding::kBf16, altered(Encoding::kBf16, 1, 0x7f),
       RejectReason::kNotFinite},
  };
  for (const Case& bad : cases) {
    INFO(bad.what);
    auto bytes = bad.bytes;
    if (bad.encoding == Encoding::kBf16) {  // 0x7f80 is infinite
      std::vector<std::byte> copy(bytes.span().begin(), bytes.span().end());
      copy[0] = std::byte{0x80};
      bytes = SharedBytes(std::move(copy));
    }
    auto pipeline = pipeline_of(bad.encoding);
    const auto rejection = pipeline.judge(ClientId{1}, report_for(bytes), bytes);
    REQUIRE(rejection);
    CHECK(rejection->first == bad.reason);
    CHECK_FALSE(pipeline.apply().ok());
    const auto good = encode(bad.encoding, layout, std::vector<float>(layout.size(), 0.5f));
    CHECK_FALSE(pipeline.judge(ClientId{1}, report_for(good), good));
  }
}

TEST_CASE("the sum of int8 updates is the integers' sum, exactly") {
  const std::uint64_t seed = 5150;
  CAPTURE(seed);
  // 300 devices send steps q_k on the model's scales s with whole weights n_k: w = s * sum n_k q_k
  // / sum n_k, where the sum of products is an integer and s has 16 significant bits.
  constexpr std::size_t kRows = 50, kChannels = 7;
  ModelLayout layout;
  layout.append("dense1.weight", {kRows, kChannels});
  UpdatePipeline::Format format;
  format.layout = layout;
  format.compressors = offered(layout, "int8");
  auto pipeline = *UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                                        ParameterVector(layout.size()), {}, format);
  RandomStream random(seed, RandomPurpose::kFault);
  std::vector<float> scales(kChannels);
  for (float& scale : scales) {
    scale = static_cast<float>(random.below(0x8000) + 0x8000) * 0x1p-25f;  // 16 significant bits
  }
  std::vector<std::int64_t> sums(layout.size());
  std::int64_t examples = 0;
  for (std::uint64_t client = 1; client <= 300; ++client) {
    std::vector<std::byte> bytes(encoded_size(Encoding::kInt8, layout));
    std::memcpy(bytes.data(), scales.data(), kChannels * sizeof(float));
    const auto n = static_cast<std::int64_t>(1 + random.below(1000));
    examples += n;
    for (std::size_t i = 0; i < layout.size(); ++i) {
      const auto q = static_cast<std::int64_t>(random.below(255)) - 127;
      bytes[kChannels * sizeof(float) + i] = static_cast<std::byte>(static_cast<std::int8_t>(q));
      sums[i] += n * q;
    }
    const SharedBytes update(std::move(bytes));
    REQUIRE_FALSE(
        pipeline.judge(ClientId{client}, report_for(update, static_cast<double>(n)), update));
  }
  REQUIRE(pipeline.apply().ok());
  for (std::size_t i = 0; i < layout.size(); ++i) {
    // |sum| < 300 * 1000 * 127 < 2^26, times 16 bits: exact in double.
    const double sum = static_cast<double>(sums[i]) * static_cast<double>(scales[i % kChannels]);
    REQUIRE(pipeline.model()[i] == static_cast<float>(sum / static_cast<double>(examples)));
  }
}

TEST_CASE("devices are sent the model as the precision says, the same bytes after a restart") {
  ModelLayout layout;
  layout.append("dense1.weight", {4, 3});
  layout.append("dense1.bias", {3});
  TrainingPlan plan;
  plan.compressor = "bf16";
  const auto [precision, encoding] = GENERATE(
      table<std::string, Encoding>({{"bf16", Encoding::kBf16}, {"int8", Encoding::kInt8}}));
  plan.precision = precision;
  const auto format = UpdatePipeline::Format::of(plan, layout, 0);
  REQUIRE(format.ok());
  auto pipeline = *UpdatePipeline::make(std::make_unique<MeanStrategy>(),
                                        ParameterVector(layout.size()), {}, *format);
  std::vector<float> values;
  for (std::size_t i = 0; i < layout.size(); ++i)
    values.push_back(0.1f * static_cast<float>(i) - 1);
  const auto update = encode(Encoding::kBf16, layout, values);
  REQUIRE_FALSE(pipeline.judge(ClientId{1}, report_for(update), update));
  const auto model = pipeline.apply();
  REQUIRE(model.ok());
  CHECK(model->parameters.size() == encoded_size(Encoding::kFp32, layout));
  CHECK(model->sent.size() == encoded_size(encoding, layout));
  ParameterVector stored(layout.size());
  REQUIRE(decode_fp32(model->parameters.span(), stored.span()).ok());
  const auto restarted = *UpdatePipeline::make(std::make_unique<MeanStrategy>(), std::move(stored),
                                               pipeline.state(), *format);
  CHECK(restarted.encoded_model().sent.digest() == model->sent.digest());
  CHECK(restarted.encoded_model().parameters.digest() == model->parameters.digest());
}

TEST_CASE("a precision or compressor that is not known is refused by name") {
  TrainingPlan plan;
  plan.compressor = "top-k";
  const auto format = UpdatePipeline::Format::of(plan, {}, 0);
  REQUIRE_FALSE(format.ok());
  CHECK_THAT(format.error().message, Catch::Contains("top-k"));
  plan.compressor = "int8";
  plan.precision = "fp8";
  CHECK_THAT(UpdatePipeline::Format::of(plan, {}, 0).error().message, Catch::Contains("fp8"));
}
