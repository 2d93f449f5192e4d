#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "block_quantiser.hpp"
#include "methods.hpp"
#include "rice_gaps.hpp"

/// "top-k:SHARE": the k = ceil(SHARE * d) values of largest magnitude (of equal ones the first),
/// and where they are (Stich et al. 2018). Biased, always with error feedback: |C(p) - p|^2 <= (1 -
/// k/d) |p|^2 and what quantisation adds, at most (1/254 + 2^-8)^2 of the largest square in each
/// block of 256 kept values.
///
/// A kept value takes 8 bits and 2 bytes a block of 256, its position log2(d/k) + 1.5 bits and a
/// little (rice_gaps.hpp): 16 bits for SHARE = 0.01. In bf16 it would take 8 bits more for an error
/// that is smaller than what is not sent at all by orders of magnitude either way.
///
/// Form: the Rice parameter (1 byte), the values (BlockFormat), the gaps. All values are sent
/// without parameter and gaps.
namespace covey::compression {
namespace {

constexpr BlockFormat kValues{8, 256};
constexpr unsigned kLowBits = 16;
constexpr std::size_t kHighs = std::size_t{1} << (31 - kLowBits);
constexpr std::size_t kLows = std::size_t{1} << kLowBits;

/// Orders as the magnitude does.
std::uint32_t magnitude_of(float value) { return std::bit_cast<std::uint32_t>(value) & 0x7fffffff; }

struct Threshold {
  std::uint32_t magnitude = 0;
  std::size_t ties = 0;  ///< values of just this magnitude that are kept
};

class TopK final : public Compressor {
 public:
  TopK(std::size_t kept, std::size_t size) : size_(size), kept_(kept), gaps_(kept, size) {}

  SizeRange sizes() const override {
    const std::size_t values = kValues.bytes(kept_);
    if (kept_ == size_) return {values, values};
    return {1 + values + gaps_.min_bytes(), 1 + values + gaps_.max_bytes()};
  }

  SharedBytes encode(std::span<const float> update, const UpdateName& /*name*/) override {
    if (kept_ == size_) {
      std::vector<std::byte> bytes(kValues.bytes(size_));
      encode_blocks(kValues, update, nullptr, bytes.data());
      return SharedBytes(std::move(bytes));
    }
    select(update);
    const RiceGaps::Choice choice = gaps_.choose(positions_);
    const std::size_t values = kValues.bytes(kept_);
    std::vector<std::byte> bytes(1 + values + choice.bytes);
    bytes[0] = static_cast<std::byte>(choice.parameter);
    encode_blocks(kValues, values_, nullptr, bytes.data() + 1);
    RiceGaps::write(positions_, choice, bytes.data() + 1 + values);
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& /*name*/,
                      std::span<float> out) override {
    COVEY_TRY(check_size("top-k", bytes.size(), sizes(), size_));
    if (kept_ == size_) {
      COVEY_TRY(check_blocks("top-k", kValues, bytes, size_));
      decode_blocks(kValues, bytes, out);
      return {};
    }
    const std::size_t size = kValues.bytes(kept_);
    const auto values = bytes.subspan(1, size);
    COVEY_TRY(check_blocks("top-k", kValues, values, kept_));
    auto read =
        gaps_.read(bytes.subspan(1 + size), std::to_integer<unsigned>(bytes[0]), positions_);
    if (!read.ok()) return with_context("top-k", read.error());
    values_.resize(kept_);
    decode_blocks(kValues, values, values_);
    std::fill(out.begin(), out.end(), 0.0f);
    for (std::size_t i = 0; i < kept_; ++i) out[positions_[i]] = values_[i];
    return {};
  }

 private:
  /// By counting, upper half of the bits first: no sorting and no copy of the update.
  Threshold find_threshold(std::span<const float> update) {
    std::size_t left = kept_;
    std::fill_n(counts_.begin(), kHighs, 0u);
    for (const float value : update) ++counts_[magnitude_of(value) >> kLowBits];
    const std::uint32_t high = descend(kHighs, left);
    std::fill_n(counts_.begin(), kLows, 0u);
    for (const float value : update) {
      const std::uint32_t magnitude = magnitude_of(value);
      if (magnitude >> kLowBits == high) ++counts_[magnitude & (kLows - 1)];
    }
    const std::uint32_t low = descend(kLows, left);
    return {high << kLowBits | low, left};
  }

  /// The largest bin that the counts of it and all above reach `left` with; left: what of it is
  /// wanted.
  std::uint32_t descend(std::size_t bins, std::size_t& left) const {
    std::size_t bin = bins - 1;
    for (; counts_[bin] < left; --bin) left -= counts_[bin];
    return static_cast<std::uint32_t>(bin);
  }

  /// Fills positions_, ascending, and values_.
  void select(std::span<const float> update) {
    counts_.resize(std::max(kHighs, kLows));
    Threshold threshold = find_threshold(update);
    positions_.clear();
    positions_.reserve(kept_);
    values_.resize(kept_);
    for (std::size_t i = 0; i < size_; ++i) {
      const std::uint32_t magnitude = magnitude_of(update[i]);
      if (magnitude < threshold.magnitude) continue;
      if (magnitude == threshold.magnitude && threshold.ties-- == 0) {
        threshold.ties = 0;
        continue;
      }
      values_[positions_.size()] = update[i];
      positions_.push_back(static_cast<std::uint32_t>(i));
    }
  }

  std::size_t size_;
  std::size_t kept_;
  RiceGaps gaps_;
  // Made at first use: sizes() is asked of models that a device then declines.
  std::vector<std::uint32_t> counts_;
  std::vector<std::uint32_t> positions_;
  std::vector<float> values_;
};

}  // namespace

std::unique_ptr<Compressor> make_top_k(const CompressorSpec& spec, std::size_t size) {
  return std::make_unique<TopK>(kept_values(spec.parameter, size), size);
}

}  // namespace covey::compression
