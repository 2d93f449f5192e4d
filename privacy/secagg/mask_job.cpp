#include <covey/privacy/secagg_device.hpp>
#include <cstring>
#include <mutex>

namespace covey::privacy {

// A second contribution under the same masks would give the server the difference of the two.
struct MaskJob::Once {
  std::mutex mutex;
  std::optional<Digest> contribution;
};

MaskJob::MaskJob(MaskCipher cipher, std::vector<MaskKey> masks)
    : cipher_(cipher), masks_(std::move(masks)), once_(std::make_unique<Once>()) {}
MaskJob::~MaskJob() = default;

Result<SharedBytes> MaskJob::run(const PackedFormat& format, std::span<const std::byte> packed,
                                 unsigned threads) const {
  if (packed.size() != format.bytes()) {
    return invalid_argument("masking: the contribution has " + std::to_string(packed.size()) +
                            " bytes, its format " + std::to_string(format.bytes()));
  }
  {
    const Digest contribution = sha256(packed);
    const std::lock_guard lock(once_->mutex);
    if (once_->contribution.has_value() && *once_->contribution != contribution) {
      return invalid_argument("masking: another contribution was masked with these keys before");
    }
    once_->contribution = contribution;
  }
  std::vector<std::uint64_t> words(format.words());
  std::memcpy(words.data(), packed.data(), packed.size());
  COVEY_TRY(apply_masks(cipher_, format, masks_, words, threads));
  auto masked = std::make_shared<const std::vector<std::uint64_t>>(std::move(words));
  const auto bytes = std::as_bytes(std::span(*masked));
  return SharedBytes(std::move(masked), bytes);
}

}  // namespace covey::privacy
