#include <covey/encoding.hpp>
#include <covey/int8_encoding.hpp>
#include <cstdint>

#include "finite.hpp"
#include "methods.hpp"

/// "fp32", "bf16" and "int8": core's encodings of an update (encoding.hpp, int8_encoding.hpp). 4, 2
/// and 1 bytes a value (int8: and 4 a channel, while tensors of rank 1 stay fp32). Error: none;
/// below 2^-7 of a value; below 1/127 of the channel's largest magnitude. bf16 and int8 round
/// stochastically, so without bias, and to nearest where there is error feedback.
namespace covey::compression {
namespace {

Encoding encoding_of(CompressorKind kind) {
  switch (kind) {
    case CompressorKind::kBf16:
      return Encoding::kBf16;
    case CompressorKind::kInt8:
      return Encoding::kInt8;
    default:
      return Encoding::kFp32;
  }
}

class Plain final : public Compressor {
 public:
  Plain(Encoding encoding, bool nearest, const ModelLayout& layout)
      : encoding_(encoding), nearest_(nearest), layout_(layout) {}

  SizeRange sizes() const override {
    const std::size_t size = encoded_size(encoding_, layout_);
    return {size, size};
  }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    if (nearest_) {
      return encoding_ == Encoding::kInt8
                 ? encode_int8(update, layout_, {.headroom = 1})  // nobody trains on its scales
                 : covey::encode(encoding_, layout_, update);
    }
    RandomStream random(name.seed, RandomPurpose::kUpdateRounding, name.round, name.client);
    return covey::encode(encoding_, layout_, update, &random);
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& /*name*/,
                      std::span<float> out) override {
    COVEY_TRY(check_size(to_string(encoding_), bytes.size(), sizes(), out.size()));
    if (encoding_ == Encoding::kFp32) {
      COVEY_TRY((check_finite<std::uint32_t, 0x7f800000>("fp32", bytes)));
    } else if (encoding_ == Encoding::kBf16) {
      COVEY_TRY((check_finite<std::uint16_t, 0x7f80>("bf16", bytes)));
    }
    return covey::decode(encoding_, layout_, bytes, out);  // checks int8 itself
  }

 private:
  Encoding encoding_;
  bool nearest_;
  ModelLayout layout_;
};

}  // namespace

std::unique_ptr<Compressor> make_plain(const CompressorSpec& spec, const ModelLayout& layout) {
  return std::make_unique<Plain>(encoding_of(spec.kind), spec.error_feedback, layout);
}

}  // namespace covey::compression
