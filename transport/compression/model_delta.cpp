#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <covey/assert.hpp>
#include <covey/compression/model_delta.hpp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

/// A difference without loss. A float's bits, read as an integer that has the order of the floats,
/// move little when the float does: model - base in these integers (wrapping), the sign moved to
/// the lowest bit so that small differences of either sign are small numbers. Their bytes are
/// separated by significance, and each such plane is stored as it is, as zeros or as one zstd frame
/// (RFC 8878): the high planes are nearly all zeros, the lowest is noise.
///
/// Form: the element size; for each plane, the lowest bytes first, its form and length (8 bits, 64
/// bits little-endian) and then its bytes; last what is left of the blob behind whole elements, by
/// XOR.
namespace covey::compression {

static_assert(std::endian::native == std::endian::little, "planes are of little-endian numbers");

namespace {

constexpr std::string_view kEncoding = "planes-zstd";

enum class PlaneForm : std::uint8_t { kZeros = 0, kStored = 1, kZstd = 2 };
constexpr std::size_t kPlaneHeader = 1 + 8;

/// Faster than any link; higher ones gain nothing on what is noise.
constexpr int kLevel = 3;
/// 128 KiB: entropy coding is what pays here, not repetition, and a device keeps as much to decode.
constexpr int kWindowLog = 17;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

/// To an integer in the order of the floats and back; int8 is in order already.
template <std::unsigned_integral Bits>
constexpr Bits ordered(Bits bits) {
  if constexpr (sizeof(Bits) == 1) return bits;
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  return static_cast<Bits>((bits & kSign) != 0 ? ~bits : bits | kSign);
}
template <std::unsigned_integral Bits>
constexpr Bits from_ordered(Bits key) {
  if constexpr (sizeof(Bits) == 1) return key;
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  return static_cast<Bits>((key & kSign) != 0 ? key & ~kSign : ~key);
}

template <std::unsigned_integral Bits>
Bits difference(Bits base, Bits model) {
  const auto moved = static_cast<Bits>(ordered(model) - ordered(base));
  const bool down = (moved >> (8 * sizeof(Bits) - 1)) != 0;
  return static_cast<Bits>(static_cast<Bits>(moved << 1) ^
                           (down ? static_cast<Bits>(~Bits{0}) : Bits{0}));
}
template <std::unsigned_integral Bits>
Bits moved_by(Bits base, Bits step) {
  const auto sign = static_cast<Bits>((step & 1) != 0 ? static_cast<Bits>(~Bits{0}) : Bits{0});
  const auto moved = static_cast<Bits>(static_cast<Bits>(step >> 1) ^ sign);
  return from_ordered(static_cast<Bits>(ordered(base) + moved));
}

template <std::unsigned_integral Bits>
Bits load(const std::byte* at) {
  Bits bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}

/// Byte `p` of difference i at planes[p * count + i].
template <std::unsigned_integral Bits>
void to_planes(std::span<const std::byte> base, std::span<const std::byte> model,
               std::span<std::byte> planes) {
  const std::size_t count = planes.size() / sizeof(Bits);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = i * sizeof(Bits);
    const Bits step = difference(load<Bits>(base.data() + at), load<Bits>(model.data() + at));
    for (std::size_t p = 0; p < sizeof(Bits); ++p) {
      planes[p * count + i] = static_cast<std::byte>(step >> (8 * p));
    }
  }
}

/// In place: differences become the model's numbers.
template <std::unsigned_integral Bits>
void add_base(std::span<const std::byte> base, std::span<std::byte> out) {
  for (std::size_t at = 0; at + sizeof(Bits) <= out.size(); at += sizeof(Bits)) {
    const Bits bits = moved_by(load<Bits>(base.data() + at), load<Bits>(out.data() + at));
    std::memcpy(out.data() + at, &bits, sizeof bits);
  }
}

bool is_element_size(std::size_t size) { return size == 1 || size == 2 || size == 4; }

void append_plane(std::span<const std::byte> plane, ZSTD_CCtx* context,
                  std::vector<std::byte>& out) {
  const std::size_t header = out.size();
  out.resize(header + kPlaneHeader);
  PlaneForm form = PlaneForm::kZeros;
  if (std::ranges::any_of(plane, [](std::byte byte) { return byte != std::byte{0}; })) {
    const std::size_t begin = out.size();
    out.resize(begin + plane.size());
    // One byte shorter than the plane, or it stays as it is.
    const std::size_t size = context == nullptr
                                 ? 0
                                 : ZSTD_compress2(context, out.data() + begin, plane.size() - 1,
                                                  plane.data(), plane.size());
    if (context != nullptr && ZSTD_isError(size) == 0) {
      form = PlaneForm::kZstd;
      out.resize(begin + size);
    } else {
      form = PlaneForm::kStored;
      std::ranges::copy(plane, out.begin() + static_cast<std::ptrdiff_t>(begin));
    }
  }
  const std::uint64_t length = out.size() - header - kPlaneHeader;
  out[header] = static_cast<std::byte>(form);
  std::memcpy(out.data() + header + 1, &length, sizeof length);
}

/// One plane's bytes, piece by piece.
class PlaneReader {
 public:
  PlaneReader(PlaneForm form, std::span<const std::byte> bytes, ZSTD_DCtx* context)
      : form_(form), input_{bytes.data(), bytes.size(), 0}, context_(context) {}

  /// Error where there are fewer, or they do not decode.
  Result<void> read(std::span<std::byte> out) {
    if (form_ == PlaneForm::kZeros) {
      std::ranges::fill(out, std::byte{0});
      return {};
    }
    if (form_ == PlaneForm::kStored) {  // of the right length: read_plane looked
      std::memcpy(out.data(), static_cast<const std::byte*>(input_.src) + input_.pos, out.size());
      input_.pos += out.size();
      return {};
    }
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos < output.size) {
      const std::size_t before = input_.pos + output.pos;
      left_ = ZSTD_decompressStream(context_, &output, &input_);
      if (ZSTD_isError(left_) != 0) {
        return malformed(fmt::format("the model's difference: {}", ZSTD_getErrorName(left_)));
      }
      if (input_.pos + output.pos == before || (left_ == 0 && output.pos < output.size)) {
        return malformed("the model's difference ends too early");
      }
    }
    return {};
  }

  /// Behind the last `read`: nothing is left over.
  bool ended() {
    if (form_ != PlaneForm::kZstd) return true;
    ZSTD_outBuffer none{nullptr, 0, 0};  // the frame's end may still be in the input
    if (left_ != 0) left_ = ZSTD_decompressStream(context_, &none, &input_);
    return left_ == 0 && input_.pos == input_.size;
  }

 private:
  PlaneForm form_;
  ZSTD_inBuffer input_;
  ZSTD_DCtx* context_;
  std::size_t left_ = 1;  ///< 0: the frame is complete
};

/// Takes one plane off the front of `delta`: byte `p` of each element of `out`.
Result<void> read_plane(std::span<const std::byte>& delta, std::size_t element_size, std::size_t p,
                        ZSTD_DCtx* context, std::span<std::byte> out) {
  const std::size_t count = out.size() / element_size;
  if (delta.size() < kPlaneHeader) return malformed("the model's difference ends too early");
  const auto form = static_cast<PlaneForm>(delta[0]);
  const auto length = load<std::uint64_t>(delta.data() + 1);
  delta = delta.subspan(kPlaneHeader);
  if (form > PlaneForm::kZstd || length > delta.size() ||
      (form == PlaneForm::kZeros && length != 0) ||
      (form == PlaneForm::kStored && length != count)) {
    return malformed(
        fmt::format("the model's difference: plane {} has form {} and {} bytes, {} values "
                    "are to come of {} bytes",
                    p, static_cast<int>(form), length, count, delta.size()));
  }
  if (form == PlaneForm::kZstd) ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  PlaneReader plane(form, delta.first(static_cast<std::size_t>(length)), context);
  delta = delta.subspan(static_cast<std::size_t>(length));
  std::array<std::byte, 4096> piece;
  for (std::size_t i = 0; i < count;) {
    const auto part = std::span(piece).first(std::min(piece.size(), count - i));
    COVEY_TRY(plane.read(part));
    for (const std::byte byte : part) out[element_size * i++ + p] = byte;
  }
  if (!plane.ended()) return malformed("the model's difference goes on where it should end");
  return {};
}

}  // namespace

Result<EncodedDelta> encode_model_delta(std::span<const std::byte> base,
                                        std::span<const std::byte> model,
                                        std::size_t element_size) {
  COVEY_ASSERT(is_element_size(element_size));
  if (base.size() != model.size()) {
    return invalid_argument(fmt::format("a model of {} bytes is no difference to one of {} bytes",
                                        model.size(), base.size()));
  }
  const std::size_t count = model.size() / element_size;
  std::vector<std::byte> planes(count * element_size);
  if (element_size == 4) to_planes<std::uint32_t>(base, model, planes);
  if (element_size == 2) to_planes<std::uint16_t>(base, model, planes);
  if (element_size == 1) to_planes<std::uint8_t>(base, model, planes);
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
  if (context) {
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kLevel);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, kWindowLog);
  }
  std::vector<std::byte> bytes{static_cast<std::byte>(element_size)};
  for (std::size_t p = 0; p < element_size; ++p) {
    append_plane(std::span(planes).subspan(p * count, count), context.get(), bytes);
  }
  for (std::size_t at = planes.size(); at < model.size(); ++at)
    bytes.push_back(model[at] ^ base[at]);
  return EncodedDelta{SharedBytes(std::move(bytes)), std::string(kEncoding)};
}

Result<SharedBytes> apply_model_delta(std::string_view encoding, std::span<const std::byte> base,
                                      std::span<const std::byte> delta) {
  if (encoding != kEncoding) {
    return malformed(fmt::format("a model's difference encoded as \"{}\"; this covey knows \"{}\"",
                                 encoding.substr(0, 40), kEncoding));
  }
  const std::size_t element_size = delta.empty() ? 0 : std::to_integer<std::size_t>(delta[0]);
  if (!is_element_size(element_size)) {
    return malformed(fmt::format("the model's difference is of numbers of {} bytes", element_size));
  }
  const std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  if (!context) return failed("not enough memory to decode the model's difference");
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kWindowLog);
  delta = delta.subspan(1);
  const std::size_t rest = base.size() % element_size;
  std::vector<std::byte> out(base.size());
  const auto whole = std::span(out).first(out.size() - rest);
  for (std::size_t p = 0; p < element_size; ++p) {
    COVEY_TRY(read_plane(delta, element_size, p, context.get(), whole));
  }
  if (delta.size() != rest) {
    return malformed(fmt::format("the model's difference has {} bytes behind its planes, not {}",
                                 delta.size(), rest));
  }
  if (element_size == 4) add_base<std::uint32_t>(base, whole);
  if (element_size == 2) add_base<std::uint16_t>(base, whole);
  if (element_size == 1) add_base<std::uint8_t>(base, whole);
  for (std::size_t i = 0; i < rest; ++i) out[whole.size() + i] = delta[i] ^ base[whole.size() + i];
  return SharedBytes(std::move(out));
}

}  // namespace covey::compression
