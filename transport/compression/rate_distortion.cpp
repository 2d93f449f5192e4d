#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <covey/bfloat16.hpp>
#include <cstring>
#include <limits>
#include <vector>

#include "bit_stream.hpp"
#include "finite.hpp"
#include "methods.hpp"
#include "random_halves.hpp"
#include "rounding.hpp"

/// "rate-distortion[:STEP]" (Mitchell et al. 2022, 2201.02664): y = floor(x / D) +
/// Bernoulli(fraction), D = STEP times the update's root mean square, entropy coded: for each y
/// that is not 0 the zeros before it + 1 in Elias' gamma code, its sign, its magnitude in the gamma
/// code; the zeros at the end likewise. Unbiased, E|Q(x) - x|^2 <= STEP^2 / 4 |x|^2; with error
/// feedback rounded to nearest, where one value's error is at most D / 2. About 3 bits a value for
/// normal values and STEP = 0.5, less for others of the same root mean square, 0 for zeros.
///
/// Form: 0 (1 byte), D (4 bytes, a single), the code; or where that would not be fewer bytes, or a
/// multiple not below 2^30: 1, and the values in bf16, which bounds every size by 1 + 2 d bytes.
namespace covey::compression {
namespace {

constexpr std::size_t kChunk = RandomHalves::kChunk;
constexpr std::byte kCoded{0};
constexpr std::byte kRaw{1};
constexpr std::size_t kHeader = 1 + sizeof(float);
constexpr float kLargestMultiple = 0x1p30f;
/// Of D: times 2^31, which no multiple reaches, it is finite.
constexpr float kLargestStep = 0x1p96f;

void quantise(const float* values, std::size_t count, float inverse, const std::uint16_t* random,
              std::int32_t* out) {
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = round_above(values[i] * inverse, random_threshold(random[i]));
  }
}

void quantise_nearest(const float* values, std::size_t count, float inverse, std::int32_t* out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = round_above(values[i] * inverse, kHalf);
}

std::uint32_t magnitude_of(std::int32_t y) {
  return y < 0 ? 0u - static_cast<std::uint32_t>(y) : static_cast<std::uint32_t>(y);
}

/// Bytes that the code of a chunk takes at most: two gamma codes of at most 63
/// bits and a sign for each value; and what is pending before and behind it.
constexpr std::size_t kChunkBytes = (kChunk + 1) * 16;

/// zeros: the run that is open before the first of the multiples, and the one behind the last.
void write_multiples(const std::int32_t* multiples, std::size_t count, std::uint32_t& zeros,
                     BitWriter& writer) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t y = multiples[i];
    if (y == 0) {
      ++zeros;
      continue;
    }
    writer.gamma(zeros + 1);
    writer.put(y < 0 ? 1 : 0, 1);
    writer.gamma(magnitude_of(y));
    zeros = 0;
  }
}

class RateDistortion final : public Compressor {
 public:
  RateDistortion(double step, bool nearest, std::size_t size)
      : step_(step), nearest_(nearest), size_(size) {}

  SizeRange sizes() const override {
    const std::size_t zeros = kHeader + (gamma_bits(static_cast<std::uint32_t>(size_) + 1) + 7) / 8;
    return {std::min(zeros, raw_bytes()), raw_bytes()};
  }

  SharedBytes encode(std::span<const float> update, const UpdateName& name) override {
    const float largest = largest_magnitude(update.data(), size_);
    const float step = largest > 0 ? step_for(update, largest) : 0;
    if ((step == 0 || largest / step < kLargestMultiple) && write_code(update, step, name)) {
      return SharedBytes(code_);
    }
    std::vector<std::byte> bytes(raw_bytes());
    write_raw(update, name, bytes);
    return SharedBytes(std::move(bytes));
  }

  Result<void> decode(std::span<const std::byte> bytes, const UpdateName& /*name*/,
                      std::span<float> out) override {
    COVEY_TRY(check_size("rate-distortion", bytes.size(), sizes(), size_));
    if (bytes[0] == kRaw) return read_raw(bytes, out);
    if (bytes[0] != kCoded) {
      return malformed(fmt::format("rate-distortion: form {}; there are 0 and 1",
                                   std::to_integer<int>(bytes[0])));
    }
    if (bytes.size() <= kHeader) return malformed("rate-distortion: no code behind the step");
    float step;
    std::memcpy(&step, bytes.data() + 1, sizeof step);
    if (!(step >= 0 && step <= kLargestStep)) {
      return malformed(
          fmt::format("rate-distortion: the step is {}; steps are from 0 to 2^96", step));
    }
    COVEY_TRY(read_multiples(bytes.subspan(kHeader)));
    for (std::size_t i = 0; i < size_; ++i) out[i] = step * static_cast<float>(multiples_[i]);
    return {};
  }

 private:
  std::size_t raw_bytes() const { return 1 + size_ * sizeof(std::uint16_t); }

  float step_for(std::span<const float> update, float largest) const {
    // squares of what is divided by the largest neither overflow nor vanish
    const double share = root_mean_square(update, largest);
    return static_cast<float>(std::clamp(step_ * share * static_cast<double>(largest),
                                         double{std::numeric_limits<float>::min()},
                                         static_cast<double>(kLargestStep)));
  }

  /// Into code_; false if that would not be shorter than the raw form.
  bool write_code(std::span<const float> update, float step, const UpdateName& name) {
    const float inverse = step > 0 ? 1 / step : 0;
    RandomHalves random(name);
    std::int32_t multiples[kChunk];
    code_.resize(kHeader + kChunkBytes);
    code_[0] = kCoded;
    std::memcpy(code_.data() + 1, &step, sizeof step);
    BitWriter writer(code_.data() + kHeader);
    std::uint32_t zeros = 0;
    for (std::size_t start = 0; start < size_; start += kChunk) {
      const std::size_t count = std::min(kChunk, size_ - start);
      if (nearest_) {
        quantise_nearest(update.data() + start, count, inverse, multiples);
      } else {
        quantise(update.data() + start, count, inverse, random.next().data(), multiples);
      }
      const auto written = static_cast<std::size_t>(writer.position() - code_.data());
      if (written >= raw_bytes()) return false;
      code_.resize(written + kChunkBytes);
      writer.move_to(code_.data() + written);
      write_multiples(multiples, count, zeros, writer);
    }
    if (zeros > 0) writer.gamma(zeros + 1);
    code_.resize(static_cast<std::size_t>(writer.finish() - code_.data()));
    return code_.size() < raw_bytes();
  }

  /// In units of `largest`.
  static double root_mean_square(std::span<const float> update, float largest) {
    float scaled[kChunk];
    double squares = 0;
    for (std::size_t start = 0; start < update.size(); start += kChunk) {
      const std::size_t count = std::min(kChunk, update.size() - start);
      for (std::size_t i = 0; i < count; ++i) scaled[i] = update[start + i] / largest;
      squares += sum_of_squares(scaled, count);
    }
    return std::sqrt(squares / static_cast<double>(update.size()));
  }

  void write_raw(std::span<const float> update, const UpdateName& name,
                 std::span<std::byte> bytes) const {
    constexpr std::uint16_t kLargest = 0x7f7f;  // finite
    bytes[0] = kRaw;
    RandomHalves random(name);
    for (std::size_t start = 0; start < size_; start += kChunk) {
      const auto halves = random.next();
      const std::size_t end = std::min(start + kChunk, size_);
      for (std::size_t i = start; i < end; ++i) {
        std::uint16_t value =
            nearest_ ? float_to_bf16(update[i]) : float_to_bf16(update[i], halves[i - start]);
        if ((value & 0x7fff) > kLargest) {
          value = static_cast<std::uint16_t>((value & 0x8000) | kLargest);
        }
        std::memcpy(bytes.data() + 1 + i * sizeof value, &value, sizeof value);
      }
    }
  }

  Result<void> read_raw(std::span<const std::byte> bytes, std::span<float> out) const {
    if (bytes.size() != raw_bytes()) {
      return malformed(fmt::format("rate-distortion: {} bytes where {} values in bf16 take {}",
                                   bytes.size(), size_, raw_bytes()));
    }
    COVEY_TRY((check_finite<std::uint16_t, 0x7f80>("rate-distortion", bytes.subspan(1))));
    for (std::size_t i = 0; i < size_; ++i) {
      std::uint16_t value;
      std::memcpy(&value, bytes.data() + 1 + i * sizeof value, sizeof value);
      out[i] = bf16_to_float(value);
    }
    return {};
  }

  /// Fills multiples_.
  Result<void> read_multiples(std::span<const std::byte> code) {
    multiples_.assign(size_, 0);
    BitReader reader(code);
    for (std::size_t at = 0; at < size_; ++at) {
      const std::uint32_t run = reader.gamma();
      if (run == 0 || run - 1 > size_ - at) {
        return malformed(
            fmt::format("rate-distortion: the zeros from value {} on are none of {}", at, size_));
      }
      at += run - 1;
      if (at == size_) break;
      const bool negative = reader.take(1) != 0;
      const std::uint32_t magnitude = reader.gamma();
      if (magnitude == 0 || magnitude > INT32_MAX) {
        return malformed(fmt::format("rate-distortion: value {} is no multiple of the step", at));
      }
      const auto multiple = static_cast<std::int32_t>(magnitude);
      multiples_[at] = negative ? -multiple : multiple;
    }
    if (!reader.finished()) {
      return malformed("rate-distortion: its bytes end before the last value or go on behind it");
    }
    return {};
  }

  double step_;
  bool nearest_;
  std::size_t size_;
  std::vector<std::byte> code_;          ///< scratch of who encodes
  std::vector<std::int32_t> multiples_;  ///< scratch of who decodes
};

}  // namespace

std::unique_ptr<Compressor> make_rate_distortion(const CompressorSpec& spec, std::size_t size) {
  return std::make_unique<RateDistortion>(spec.parameter, spec.error_feedback, size);
}

}  // namespace covey::compression
