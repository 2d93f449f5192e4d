#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <covey/result.hpp>

/// How updates are made small, as plans and run files name it. `compression/` carries it out.
namespace covey {

enum class CompressorKind : std::uint8_t {
  kFp32 = 1,            ///< "fp32": as they are
  kFp16 = 2,            ///< "fp16"
  kBf16 = 3,            ///< "bf16"
  kInt8 = 4,            ///< "int8": a scale per output channel (int8_encoding.hpp)
  kLinear = 5,          ///< "int4", "int2": a scale per block, stochastic rounding
  kSign = 6,            ///< "sign": signs and one scale (signSGD with error feedback)
  kDrive = 7,           ///< "drive": rotation, signs and one scale (Vargaftik et al. 2021)
  kEden = 8,            ///< "eden-1" .. "eden-4": rotation, so many bits a value (Vargaftik et al. 2022)
  kTopK = 9,            ///< "top-k:SHARE": the largest values and where they are, with error feedback
  kRandomK = 10,        ///< "random-k:SHARE": values at places drawn from the round's seed, the same for
                        ///< all devices (random masks, Konecny et al. 2016)
  kRateDistortion = 11, ///< "rate-distortion[:STEP]": quantised and entropy coded (Mitchell et al. 2022)
};

/// NAME[:PARAMETER][+error-feedback][+zstd], for instance "top-k:0.01", "eden-2+error-feedback",
/// "int8+zstd".
struct CompressorSpec {
  CompressorKind kind = CompressorKind::kFp32;
  std::uint32_t bits = 0;       ///< a value, of kLinear (2, 4) and kEden (1..4); else 0
  double parameter = 0;         ///< SHARE in (0, 1], STEP above 0; else 0
  /// What compression loses is added to the device's next update (Seide et al. 2014; Karimireddy et al.
  /// 2019). Always with top-k and sign. The scale is then that of least error, otherwise the unbiased one.
  bool error_feedback = false;
  bool zstd = false;            ///< the encoded bytes are compressed once more where that makes them fewer
  bool operator==(const CompressorSpec&) const = default;

  /// The sum of encoded updates is the encoding of the sum: what secure aggregation can carry out.
  bool linear() const {
    return kind == CompressorKind::kFp32 || kind == CompressorKind::kInt8 ||
           kind == CompressorKind::kLinear || kind == CompressorKind::kRandomK ||
           kind == CompressorKind::kEden;
  }
};

/// Error naming what of `text` is not understood, and what there is.
Result<CompressorSpec> parse_compressor(std::string_view text);
/// What parse_compressor reads back as the same.
std::string to_string(const CompressorSpec& spec);
/// What a device says it can encode with: every NAME, without parameter, and "error-feedback", "zstd".
const std::vector<std::string>& compressor_names();
/// Whether a device that says `names` can carry out `spec`.
bool supports(const std::vector<std::string>& names, const CompressorSpec& spec);

}  // namespace covey
