#include <fmt/format.h>

#include <vector>

#include "block_quantiser.hpp"
#include "methods.hpp"

/// "int4" and "int2": linear quantisation with a step for every 64 values (QSGD, Alistarh et al.
/// 2017, with the block's largest magnitude in place of its norm; "int2" is TernGrad's -1, 0, 1,
/// Wen et al. 2017). 4.25 and 2.25 bits a value. Rounded stochastically, so without bias, E|Q(x) -
/// x|^2 <= min(n/L^2, sqrt(n)/L) |x|^2 in every block of n = 64 with L = 7 or 1; with error
/// feedback to nearest, with the step of (nearly) least error.
///
/// Blocks of 64 and not 256: the largest of 64 normal values is 2.4 standard deviations instead
/// of 2.8, which is worth more than the 3/16 of a bit that the steps take.
namespace covey::compression {
namespace {

class Linear final : public Compressor {
 public:
  Linear(unsigned bits, bool nearest, std::size_t size)
      : format_{bits, 64}, nearest_(nearest), size_(size) {}

  SizeRange sizes() const override { return {format_.bytes(size_), format_.bytes(size_)}; }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    std::vector<std::byte> bytes(format_.bytes(size_));
    RandomHalves random(name);
    encode_blocks(format_, update, nearest_ ? nullptr : &random, bytes.data());
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& /*name*/,
                      std::span<float> out) override {
    COVEY_TRY(check_blocks(format_.bits == 4 ? "int4" : "int2", format_, bytes, size_));
    decode_blocks(format_, bytes, out);
    return {};
  }

 private:
  BlockFormat format_;
  bool nearest_;
  std::size_t size_;
};

}  // namespace

std::unique_ptr<Compressor> make_linear(const CompressorSpec& spec, std::size_t size) {
  return std::make_unique<Linear>(spec.bits, spec.error_feedback, size);
}

}  // namespace covey::compression
