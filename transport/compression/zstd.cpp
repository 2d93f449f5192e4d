#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <cstring>
#include <vector>

#include "methods.hpp"

/// "+zstd": a method's bytes compressed once more (RFC 8878), where that makes them fewer. One byte
/// more at worst. Which bytes exactly depends on zstd's version; what they decode to does not.
///
/// Form: 0 and the method's bytes, or 1 and one zstd frame that says its size.
namespace covey::compression {
namespace {

constexpr std::byte kStored{0};
constexpr std::byte kCompressed{1};
/// zstd's default: of the levels that are faster than a home's uplink by orders of magnitude.
constexpr int kLevel = 3;
/// Magic number, descriptor, size; a block of one repeated byte (RFC 8878, 3.1.1).
constexpr std::size_t kSmallestFrame = 4 + 1 + 1 + 3 + 1;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

class Zstd final : public Compressor {
 public:
  explicit Zstd(std::unique_ptr<Compressor> inner) : inner_(std::move(inner)) {}

  SizeRange sizes() const override {
    const SizeRange inner = inner_->sizes();
    return {1 + std::min(inner.min, kSmallestFrame), 1 + inner.max};
  }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    const SharedBytes plain = inner_->encode(update, name);
    // room for what is shorter, or for the whole
    std::vector<std::byte> bytes(1 + plain.size());
    const std::size_t size = compress(plain.span(), std::span(bytes).subspan(1));
    if (size < plain.size()) {
      bytes[0] = kCompressed;
      bytes.resize(1 + size);
    } else {
      bytes[0] = kStored;
      std::copy(plain.span().begin(), plain.span().end(), bytes.begin() + 1);
    }
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& name,
                      std::span<float> out) override {
    COVEY_TRY(check_size("zstd", bytes.size(), sizes(), out.size()));
    const auto rest = bytes.subspan(1);
    if (bytes[0] == kStored) return inner_->decode(rest, name, out);
    if (bytes[0] != kCompressed) {
      return malformed(
          fmt::format("zstd: form {}; there are 0 and 1", std::to_integer<int>(bytes[0])));
    }
    // A frame says how long it claims to become: nothing is allocated that no method would fill.
    const SizeRange sizes = inner_->sizes();
    const unsigned long long claimed = ZSTD_getFrameContentSize(rest.data(), rest.size());
    if (claimed == ZSTD_CONTENTSIZE_ERROR || claimed == ZSTD_CONTENTSIZE_UNKNOWN ||
        !sizes.contains(claimed)) {
      return malformed(
          fmt::format("zstd: no frame that says it holds {} to {} bytes", sizes.min, sizes.max));
    }
    COVEY_TRY(decompress(rest, static_cast<std::size_t>(claimed)));
    return inner_->decode(plain_, name, out);
  }

 private:
  /// out.size() where it would not be shorter.
  std::size_t compress(std::span<const std::byte> plain, std::span<std::byte> out) {
    if (!compressing_) compressing_.reset(ZSTD_createCCtx());
    if (!compressing_ || plain.empty()) return out.size();  // out of memory: sent as it is
    const std::size_t size = ZSTD_compressCCtx(compressing_.get(), out.data(), out.size() - 1,
                                               plain.data(), plain.size(), kLevel);
    return ZSTD_isError(size) != 0 ? out.size() : size;
  }

  /// Fills plain_ with `size` bytes.
  Result<void> decompress(std::span<const std::byte> frame, std::size_t size) {
    if (!decompressing_) decompressing_.reset(ZSTD_createDCtx());
    if (!decompressing_) return failed("zstd: not enough memory for a decoder");
    plain_.resize(size);
    const std::size_t got = ZSTD_decompressDCtx(decompressing_.get(), plain_.data(), plain_.size(),
                                                frame.data(), frame.size());
    if (ZSTD_isError(got) != 0) return malformed(fmt::format("zstd: {}", ZSTD_getErrorName(got)));
    if (got != size) {
      return malformed(fmt::format("zstd: {} bytes where the frame says {}", got, size));
    }
    return {};
  }

  std::unique_ptr<Compressor> inner_;
  std::unique_ptr<ZSTD_CCtx, FreeContext> compressing_;
  std::unique_ptr<ZSTD_DCtx, FreeContext> decompressing_;
  std::vector<std::byte> plain_;
};

}  // namespace

std::unique_ptr<Compressor> make_zstd(std::unique_ptr<Compressor> inner) {
  return std::make_unique<Zstd>(std::move(inner));
}

}  // namespace covey::compression
