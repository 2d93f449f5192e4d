#pragma once

#include <cstddef>
#include <cstdint>

namespace covey::models {

/// e^x and ln x in double precision by additions, multiplications and divisions alone, so that
/// every processor and library gives the same bits (the C library picks fused instructions where it
/// finds them). Within 2e-15 relative. exponential: x <= 0; logarithm: x >= 1.
double exponential(double x);
double logarithm(double x);

struct SoftmaxLoss {
  double loss_sum = 0;
  std::uint64_t correct = 0;
};

/// Cross-entropy of softmax(logits) [batch x classes] against labels; the first of equal scores
/// counts as the prediction. With `gradient` the logits are replaced by (softmax - one-hot) /
/// batch. NaN if a score is not finite; then the logits stay as they are.
SoftmaxLoss softmax_cross_entropy(float* logits, const std::int32_t* labels, std::size_t batch,
                                  std::size_t classes, bool gradient);

}  // namespace covey::models
