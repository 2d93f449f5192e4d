#pragma once

#include <array>
#include <covey/random.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

/// The arithmetic of synthetic data, where all of its time goes: normal draws (Box-Muller) and the
/// labels' scores, many at a time. Plain IEEE operations in a fixed order (no fused multiply-adds,
/// no library functions), so the same bits come out of every instruction set and every C library.
namespace covey::models {

inline constexpr std::size_t kSyntheticFeatures = 60;
inline constexpr std::size_t kSyntheticClasses = 10;

/// y = argmax(W^T x + b): W [60 x 10], b [10]; x ~ N(center, deviation^2). Rows are padded with
/// zeros to whole vector registers.
struct SyntheticModel {
  static constexpr std::size_t kLanes = 16;
  alignas(64) std::array<std::array<double, kLanes>, kSyntheticFeatures> weight{};
  alignas(64) std::array<double, kLanes> bias{};
  std::array<double, kSyntheticFeatures> center{};
  std::array<double, kSyntheticFeatures> deviation{};
};

/// What the stream's normal() gives one after the other from its beginning, to an ulp or two.
/// out: an even number, at most 2^33.
void draw_normals(const RandomStream::Blocks& stream, std::span<double> out);

/// Example `rows[i]` of the stream, whose numbers are 60 normal draws each, to features
/// [rows.size() x 60] and labels [rows.size()]. rows < 2^32 / 30.
void draw_examples(const SyntheticModel& model, const RandomStream::Blocks& stream,
                   std::span<const std::uint32_t> rows, std::span<float> features,
                   std::span<std::int32_t> labels);

}  // namespace covey::models
