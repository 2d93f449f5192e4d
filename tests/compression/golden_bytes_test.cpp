// Machines agree: the bytes of a fixed update are written down. A change here is a change of the
// format, which peers of other versions do not read.
#include <covey/digest.hpp>
#include <cstring>

#include "compression_support.hpp"

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

namespace {

struct Golden {
  const char* spec;
  const char* encoded;  ///< first 16 digits of the SHA-256 of the bytes
  const char* decoded;  ///< and of the values that they are decoded to
};

// "+zstd" is not here: its bytes are those of zstd's version.
constexpr Golden kGolden[] = {
    {"fp32", "a96ab939b82bea2b", "a96ab939b82bea2b"},
    {"fp16", "190db50b4bddbd26", "a96ab939b82bea2b"},
    {"fp16+error-feedback", "190db50b4bddbd26", "a96ab939b82bea2b"},
    {"bf16", "8cd36292cd82312f", "0deaf8b2f35bc487"},
    {"bf16+error-feedback", "36de89f5ab57ca09", "81b5f6022b7d7316"},
    {"int8", "46d07214ae522a9f", "e5233f4011abb084"},
    {"int8+error-feedback", "cb33beddde16266e", "673cd9d01c556151"},
    {"int4", "df79ca8617a178b0", "0ed10260d5c08745"},
    {"int4+error-feedback", "de9be4ee4b2a786a", "a06854c17e52050e"},
    {"int2", "af5091fe2d3ceb04", "197dcb9bdddfded9"},
    {"int2+error-feedback", "1c280065a9a18de0", "47cd8bd46cdfeee2"},
    {"sign", "8ed7dec7853c0528", "60192506eaf79b39"},
    {"drive", "6b3012adb8994e78", "e3b7cc4c4630ad5b"},
    {"drive+error-feedback", "1c0bb824cd874fde", "45ebbea64ed1da99"},
    {"eden-1", "eeb6c3f8e3ed88d3", "e43273b9139e2334"},
    {"eden-2", "729d1f69eba24e28", "5e483018d44399d8"},
    {"eden-2+error-feedback", "9814e9f7bdd2112d", "355cddb13fade1a5"},
    {"eden-3", "9f7b41a139d6b58a", "9c80ed57655184e1"},
    {"eden-4", "354f1d8a29b23878", "1bedd1e96df0fe68"},
    {"top-k:0.01", "3d4682b408e866b2", "0105d46de74a93fc"},
    {"top-k:0.5", "4c6429f5e02f4981", "1621f6ca58290233"},
    {"random-k:0.01", "4250a67b128fcb35", "889e03685ec2ded8"},
    {"random-k:0.5+error-feedback", "b2c3f5f08a828407", "fb80840f8e28903e"},
    {"rate-distortion", "eaca593268cc150f", "6b2206337ef64c5b"},
    {"rate-distortion:1.9+error-feedback", "8302ad8778b40774", "f61879ff99157ed3"},
    {"rate-distortion:0.00001", "0c385df98af86fb7", "a17b630ce9b78564"},
};

/// Whole numbers times powers of two, which no library's logarithm has a part in; blocks of every
/// kind.
std::vector<float> fixed_vector() {
  RandomStream random(kSeed, RandomPurpose::kTraining);
  std::vector<float> values(40001);
  for (float& x : values) {
    const auto whole = static_cast<int>(random.below(2001)) - 1000;
    x = std::ldexp(static_cast<float>(whole), -10 - static_cast<int>(random.below(8)));
  }
  return values;
}

ModelLayout fixed_layout() {
  ModelLayout layout;
  layout.append("weight", {400, 100});
  layout.append("bias", {1});
  return layout;
}

std::string digits(std::span<const std::byte> bytes) { return sha256(bytes).hex().substr(0, 16); }

}  // namespace

TEST_CASE("a fixed update has the same bytes on every machine") {
  const Golden golden = GENERATE(from_range(std::begin(kGolden), std::end(kGolden)));
  const auto values = fixed_vector();
  const auto compressor = make(golden.spec, fixed_layout());
  const SharedBytes bytes = compressor->encode(values, kName);
  const auto out = decoded(*compressor, bytes, values.size());
  INFO("{\"" << golden.spec << "\", \"" << digits(bytes.span()) << "\", \""
             << digits(std::as_bytes(std::span(out))) << "\"},");
  CHECK(digits(bytes.span()) == golden.encoded);
  CHECK(digits(std::as_bytes(std::span(out))) == golden.decoded);
}
