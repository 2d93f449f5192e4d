#include <catch2/catch.hpp>
#include <cmath>
#include <covey/compression/model_delta.hpp>
#include <covey/compression/model_steps.hpp>
#include <covey/encoding.hpp>
#include <covey/random.hpp>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace covey::compression {
namespace {

constexpr std::uint64_t kSeed = 20;

std::vector<float> normal(std::size_t size, float deviation, std::uint32_t round) {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{round});
  std::vector<float> values(size);
  for (float& value : values) value = deviation * static_cast<float>(random.normal());
  return values;
}

std::vector<std::byte> bytes_of(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> random_bytes(std::size_t size, std::uint32_t round) {
  RandomStream random(kSeed, RandomPurpose::kDataGeneration, RoundNumber{round});
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next_u32());
  return bytes;
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

ModelLayout layout_of(std::uint32_t inputs, std::uint32_t units) {
  ModelLayout layout;
  layout.append("dense.weight", {units, inputs});
  layout.append("dense.bias", {units});
  return layout;
}

}  // namespace

TEST_CASE("a model's difference gives its bytes back, whatever they are") {
  INFO("seed " << kSeed);
  for (const std::size_t element_size : {1u, 2u, 4u}) {
    for (const std::size_t size : {0u, 1u, 3u, 4u, 7u, 4096u * 4u, 70'001u}) {
      CAPTURE(element_size, size);
      const auto base = random_bytes(size, 1);
      const auto model = random_bytes(size, 2);
      const auto delta = encode_model_delta(base, model, element_size);
      REQUIRE(delta.ok());
      // A header of nine bytes a plane at worst.
      CHECK(delta->bytes.size() <= size + 1 + 9 * element_size);
      const auto back = apply_model_delta(delta->encoding, base, delta->bytes.span());
      REQUIRE(back.ok());
      CHECK(same(back->span(), model));
    }
  }
}

TEST_CASE("a model's difference keeps zeros of both signs, infinities and numbers that are none") {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> base = {0.0f, -0.0f, 1.0f, -1.0f, inf, -inf, std::nanf("7"), 1e-45f};
  std::vector<float> model = base;
  std::ranges::rotate(model, model.begin() + 3);
  const auto delta = encode_model_delta(bytes_of(base), bytes_of(model), 4);
  REQUIRE(delta.ok());
  const auto back = apply_model_delta(delta->encoding, bytes_of(base), delta->bytes.span());
  REQUIRE(back.ok());
  CHECK(same(back->span(), bytes_of(model)));
}

TEST_CASE("a model that did not change is a difference of a few bytes") {
  const auto model = random_bytes(40'000, 3);
  const auto delta = encode_model_delta(model, model, 4);
  REQUIRE(delta.ok());
  CHECK(delta->bytes.size() == 1 + 4 * 9);
}

TEST_CASE("a small step of a model is a small difference in every precision") {
  INFO("seed " << kSeed);
  // Weights of deviation 0.1 that move by a hundredth of it. An fp32 step then is about 2^-7 of its
  // value, so some 17 of 32 bits are new; of bf16's 8 significant bits about one; of int8 (a scale
  // of 127 / (4 to 5 deviations)) less than one.
  const ModelLayout layout = layout_of(300, 200);
  auto base = normal(layout.size(), 0.1f, 4);
  auto model = normal(layout.size(), 0.001f, 5);
  for (std::size_t i = 0; i < model.size(); ++i) model[i] += base[i];
  const auto share = [&](Encoding encoding, std::size_t element_size) {
    const auto before = encode(encoding, layout, base);
    const auto after = encode(encoding, layout, model);
    const auto delta = encode_model_delta(before.span(), after.span(), element_size);
    REQUIRE(delta.ok());
    const auto back = apply_model_delta(delta->encoding, before.span(), delta->bytes.span());
    REQUIRE(back.ok());
    CHECK(back->digest() == after.digest());
    return static_cast<double>(delta->bytes.size()) / static_cast<double>(after.size());
  };
  CHECK(share(Encoding::kFp32, 4) < 0.75);
  CHECK(share(Encoding::kBf16, 2) < 0.35);
  CHECK(share(Encoding::kInt8, 1) < 0.35);
}

TEST_CASE("models of different lengths have no difference") {
  const auto refused = encode_model_delta(random_bytes(8, 1), random_bytes(12, 1), 4);
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().message.find("12 bytes is no difference to one of 8") != std::string::npos);
}

TEST_CASE("a difference cut anywhere or with bytes behind it is refused") {
  INFO("seed " << kSeed);
  const auto base = bytes_of(normal(2000, 0.1f, 6));
  auto moved = normal(2000, 0.001f, 7);
  const auto before = normal(2000, 0.1f, 6);
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += before[i];
  const auto delta = encode_model_delta(base, bytes_of(moved), 4);
  REQUIRE(delta.ok());
  const auto whole = delta->bytes.span();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    if (!apply_model_delta(delta->encoding, base, whole.first(length)).ok()) continue;
    FAIL_CHECK("accepted the first " << length << " bytes of " << whole.size());
  }
  std::vector<std::byte> longer(whole.begin(), whole.end());
  longer.push_back(std::byte{0});
  CHECK_FALSE(apply_model_delta(delta->encoding, base, longer).ok());
  CHECK_FALSE(apply_model_delta("planes-lz", base, whole).ok());
  // Of another length than its base.
  const auto shorter = std::span(base).first(base.size() - 4);
  CHECK_FALSE(apply_model_delta(delta->encoding, shorter, whole).ok());
}

TEST_CASE("a damaged difference is refused or makes another model, and nothing worse") {
  INFO("seed " << kSeed);
  const auto base = bytes_of(normal(500, 0.1f, 8));
  const auto model = bytes_of(normal(500, 0.1f, 9));
  const auto delta = encode_model_delta(base, model, 4);
  REQUIRE(delta.ok());
  RandomStream random(kSeed, RandomPurpose::kFault);
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<std::byte> damaged(delta->bytes.span().begin(), delta->bytes.span().end());
    const auto at = static_cast<std::size_t>(random.below(damaged.size()));
    damaged[at] ^= static_cast<std::byte>(1 + random.below(255));
    const auto back = apply_model_delta(delta->encoding, base, damaged);
    if (back.ok()) CHECK(back->size() == base.size());
  }
}

TEST_CASE("steps lead a device to the bits of the model that the server sends") {
  INFO("seed " << kSeed);
  const ModelLayout layout = layout_of(40, 30);
  for (const char* name : {"int8", "int4", "eden-2", "sign", "top-k:0.05", "int8+zstd", "fp16"}) {
    CAPTURE(name);
    const auto spec = parse_compressor(name);
    REQUIRE(spec.ok());
    const auto compressor = make_compressor(*spec, layout);
    REQUIRE(compressor.ok());
    const auto base = normal(layout.size(), 0.1f, 10);
    std::vector<float> sent = base;
    std::vector<float> scratch(layout.size());
    std::vector<std::byte> steps;
    for (std::uint32_t round = 3; round <= 5; ++round) {
      const auto moved = normal(layout.size(), 0.01f, 20 + round);
      const auto update_name = model_step_name(kSeed, RoundNumber{round});
      const auto step = (*compressor)->encode(moved, update_name);
      REQUIRE(apply_model_step(**compressor, update_name, step.span(), scratch, sent).ok());
      const auto framed = frame_model_step(RoundNumber{round}, step.span());
      steps.insert(steps.end(), framed.begin(), framed.end());
    }
    const auto there =
        apply_model_steps(model_steps_encoding(*spec), layout, kSeed, bytes_of(base), steps);
    REQUIRE(there.ok());
    CHECK(same(there->span(), bytes_of(sent)));
  }
}

TEST_CASE("steps that are cut, too many, or of another layout are refused with a sentence") {
  const ModelLayout layout = layout_of(4, 3);
  const std::vector<float> base(layout.size(), 1.0f);
  const auto spec = parse_compressor("int8");
  const auto compressor = make_compressor(*spec, layout);
  const auto step = (*compressor)->encode(base, model_step_name(kSeed, RoundNumber{1}));
  const auto one = frame_model_step(RoundNumber{1}, step.span());
  const std::string encoding = model_steps_encoding(*spec);
  const auto refusal = [&](std::string_view name, std::span<const std::byte> from,
                           std::span<const std::byte> steps) {
    const auto result = apply_model_steps(name, layout, kSeed, from, steps);
    return result.ok() ? std::string() : result.error().message;
  };
  CHECK(refusal(encoding, bytes_of(base), one).empty());
  for (std::size_t length = 1; length < one.size(); ++length) {
    CHECK(refusal(encoding, bytes_of(base), std::span(one).first(length))
              .find("ends within a step") != std::string::npos);
  }
  std::vector<std::byte> many;
  for (std::size_t i = 0; i <= kMostModelSteps; ++i)
    many.insert(many.end(), one.begin(), one.end());
  CHECK(refusal(encoding, bytes_of(base), many).find("more than 32 steps") != std::string::npos);
  CHECK(refusal(encoding, std::vector<std::byte>(8), one).find("steps from a model of 8 bytes") !=
        std::string::npos);
  CHECK(refusal("steps:", bytes_of(base), one) != "");
  CHECK(refusal("steps:mp3", bytes_of(base), one) != "");
  CHECK(refusal("planes-zstd", bytes_of(base), one).find("are no steps") != std::string::npos);
}

}  // namespace covey::compression
