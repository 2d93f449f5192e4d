#include <algorithm>
#include <bit>
#include <vector>

#include "block_quantiser.hpp"
#include "methods.hpp"

/// "random-k:SHARE": k = ceil(SHARE * d) values at places drawn from the plan's seed and the round,
/// the same for all devices of a round (random masks, Konecny et al. 2016, section 2.2): no
/// positions are sent, and the sum of a round's updates has k values too. Times d/k and rounded
/// stochastically, so without bias, E|Q(x) - x|^2 = (d/k - 1) |x|^2 and what 8 bits add, at most
/// d/k (1/127)^2 / 4 of the largest square for each value kept; with error feedback as they are, (1
/// - k/d) |x|^2 on average. A kept value takes 8 bits and 2 bytes a block of 256.
namespace covey::compression {
namespace {

constexpr BlockFormat kValues{8, 256};

class RandomK final : public Compressor {
 public:
  RandomK(bool unbiased, std::size_t kept, std::size_t size)
      : unbiased_(unbiased), size_(size), kept_(kept) {}

  SizeRange sizes() const override { return {kValues.bytes(kept_), kValues.bytes(kept_)}; }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    choose(name);
    const float factor =
        unbiased_ && size_ > 0
            ? static_cast<float>(static_cast<double>(size_) / static_cast<double>(kept_))
            : 1.0f;
    std::size_t next = 0;
    for_each_chosen([&](std::size_t position) { values_[next++] = update[position] * factor; });
    std::vector<std::byte> bytes(sizes().max);
    RandomHalves random(name);
    encode_blocks(kValues, values_, unbiased_ ? &random : nullptr, bytes.data());
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& name,
                      std::span<float> out) override {
    COVEY_TRY(check_blocks("random-k", kValues, bytes, kept_));
    choose(name);
    decode_blocks(kValues, bytes, values_);
    std::fill(out.begin(), out.end(), 0.0f);
    std::size_t next = 0;
    for_each_chosen([&](std::size_t position) { out[position] = values_[next++]; });
    return {};
  }

 private:
  /// Fills chosen_, a bit a value: the fewer of those kept and those left out are drawn, each as
  /// often as it takes to find one that is not drawn yet, twice at most on average.
  void choose(const UpdateName& name) {
    if (drawn_ && seed_ == name.seed && round_ == name.round) return;
    const bool draw_kept = kept_ <= size_ / 2;
    chosen_.resize((size_ + 63) / 64);
    values_.resize(kept_);
    std::fill(chosen_.begin(), chosen_.end(), draw_kept ? 0 : ~std::uint64_t{0});
    if (size_ % 64 != 0) chosen_.back() &= (std::uint64_t{1} << (size_ % 64)) - 1;
    RandomStream random(name.seed, RandomPurpose::kSubsample, name.round);
    for (std::size_t left = draw_kept ? kept_ : size_ - kept_; left > 0;) {
      const auto position = static_cast<std::size_t>(random.below(size_));
      const std::uint64_t bit = std::uint64_t{1} << (position % 64);
      std::uint64_t& word = chosen_[position / 64];
      if (((word & bit) != 0) == draw_kept) continue;
      word ^= bit;
      --left;
    }
    drawn_ = true;
    seed_ = name.seed;
    round_ = name.round;
  }

  template <typename Visit>
  void for_each_chosen(Visit visit) const {
    for (std::size_t word = 0; word < chosen_.size(); ++word) {
      for (std::uint64_t bits = chosen_[word]; bits != 0; bits &= bits - 1) {
        visit(word * 64 + static_cast<std::size_t>(std::countr_zero(bits)));
      }
    }
  }

  bool unbiased_;
  std::size_t size_;
  std::size_t kept_;
  // Made at first use: sizes() is asked of models that a device then declines.
  std::vector<std::uint64_t> chosen_;
  std::vector<float> values_;
  bool drawn_ = false;  ///< chosen_ is of seed_ and round_
  std::uint64_t seed_ = 0;
  RoundNumber round_{};
};

}  // namespace

std::unique_ptr<Compressor> make_random_k(const CompressorSpec& spec, std::size_t size) {
  return std::make_unique<RandomK>(!spec.error_feedback, kept_values(spec.parameter, size), size);
}

}  // namespace covey::compression
