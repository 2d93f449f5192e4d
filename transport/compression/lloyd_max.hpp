#pragma once

#include <array>

namespace covey::compression {

/// The positive levels of the quantiser of least mean squared error for a standard normal value
/// with 2^Bits levels, the others being their negatives (Max 1960, "Quantizing for minimum
/// distortion", table I, to more digits: each level is the mean between its bounds, each bound the
/// middle of two levels).
template <unsigned Bits>
struct LloydMax;

template <>
struct LloydMax<1> {
  static constexpr std::array<float, 1> kLevels = {0.7978845608f};
};
template <>
struct LloydMax<2> {
  static constexpr std::array<float, 2> kLevels = {0.4527800346f, 1.5104176085f};
};
template <>
struct LloydMax<3> {
  static constexpr std::array<float, 4> kLevels = {0.2450941789f, 0.7560052812f, 1.3439092785f,
                                                   2.1519457045f};
};
template <>
struct LloydMax<4> {
  static constexpr std::array<float, 8> kLevels = {0.1283950299f, 0.3880482995f, 0.6567591185f,
                                                   0.9423404565f, 1.2562311973f, 1.6180463860f,
                                                   2.0690172265f, 2.7325895710f};
};

}  // namespace covey::compression
