#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <utility>

#include "accounting/loss_mixture.hpp"
#include "accounting/privacy_loss.hpp"

namespace covey::privacy {
namespace {

class GridBuilder {
 public:
  GridBuilder(double step, double first_loss, double last_loss) {
    grid_.step = step;
    grid_.first = static_cast<std::int64_t>(std::floor(first_loss / step));
    const auto last = static_cast<std::int64_t>(std::ceil(last_loss / step));
    grid_.weights.assign(static_cast<std::size_t>(last - grid_.first + 1), 0.0);
  }

  /// Mass whose loss lies in [step k, step (k + 1)]: `upper` of P and `lower` of Q, put on the two
  /// ends so that both keep their mass. That is the chord of delta over e^epsilon.
  void add_cell(std::int64_t k, double upper, double lower) {
    const double low_loss = grid_.step * static_cast<double>(k);
    // p_low + p_high = upper, p_low e^-low + p_high e^-high = lower.
    const double high_part = (upper - std::exp(low_loss) * lower) / -std::expm1(-grid_.step);
    const double high = std::clamp(high_part, 0.0, upper);
    at(k) += upper - high;
    at(k + 1) += high;
  }
  void add_point(std::int64_t k, double mass) { at(k) += mass; }
  void add_infinite(double mass) { grid_.infinite += mass; }
  LossGrid finish() && { return std::move(grid_); }

 private:
  double& at(std::int64_t k) {
    const auto index = static_cast<std::size_t>(k - grid_.first);
    COVEY_ASSERT(index < grid_.weights.size());
    return grid_.weights[index];
  }

  LossGrid grid_;
};

/// An outcome with what a normal distribution has beyond it, on the side where that is little:
/// digits are kept there.
struct Boundary {
  Boundary(double outcome, double mean, double sigma)
      : above(outcome > mean), tail(normal_above(std::abs(outcome - mean) / sigma)) {}
  /// From here up to `to`.
  double mass_until(const Boundary& to) const {
    if (above) return tail - to.tail;
    return (to.above ? 1 - to.tail : to.tail) - tail;
  }
  bool above;
  double tail;
};

/// Calls visit(k, mixture mass, plain mass) for the cells of ln(mixture / plain) from step * first
/// to step * last.
template <typename Visit>
void for_each_cell(const LossMixture& mixture, double step, std::int64_t first, std::int64_t last,
                   const Visit& visit) {
  const auto boundaries = [&](std::int64_t k) {
    const double outcome = mixture.outcome_at(step * static_cast<double>(k));
    return std::pair(Boundary(outcome, 0, mixture.sigma), Boundary(outcome, 1, mixture.sigma));
  };
  auto from = boundaries(first);
  for (std::int64_t k = first; k < last; ++k) {
    const auto to = boundaries(k + 1);
    const double plain = from.first.mass_until(to.first);
    const double shifted = from.second.mass_until(to.second);
    visit(k, (1 - mixture.q) * plain + mixture.q * shifted, plain);
    from = to;
  }
}

}  // namespace

LossGrid loss_grid(const SampledGaussian& mechanism, double step, double most_infinite) {
  using Direction = SampledGaussian::Direction;
  const LossMixture mixture = loss_mixture(mechanism);
  const auto [low, high] = mixture.outcomes_beyond(most_infinite);
  const auto grid_floor = [&](double loss) {
    return static_cast<std::int64_t>(std::floor(loss / step));
  };
  const std::int64_t first = grid_floor(mixture.loss_at(low));
  const std::int64_t last = grid_floor(mixture.loss_at(high)) + 1;
  const double first_outcome = mixture.outcome_at(step * static_cast<double>(first));
  const double last_outcome = mixture.outcome_at(step * static_cast<double>(last));
  const double least = step * static_cast<double>(first), most = step * static_cast<double>(last);

  if (mechanism.direction == Direction::kRemove) {
    GridBuilder builder(step, least, most);
    for_each_cell(mixture, step, first, last, [&](std::int64_t k, double mixed, double plain) {
      builder.add_cell(k, mixed, plain);
    });
    builder.add_point(first, mixture.mixture_below(first_outcome));
    builder.add_infinite(mixture.mixture_above(last_outcome));
    return std::move(builder).finish();
  }
  if (mechanism.direction == Direction::kAdd) {
    GridBuilder builder(step, -most, -least);
    for_each_cell(mixture, step, first, last, [&](std::int64_t k, double mixed, double plain) {
      builder.add_cell(-k - 1, plain, mixed);
    });
    builder.add_point(-last, mixture.plain_above(last_outcome));
    builder.add_infinite(mixture.plain_below(first_outcome));
    return std::move(builder).finish();
  }
  GridBuilder builder(step, -most, most);
  for_each_cell(mixture, step, 0, last, [&](std::int64_t k, double mixed, double plain) {
    builder.add_cell(k, mixed, plain);
    builder.add_cell(-k - 1, plain, mixed);
  });
  builder.add_point(-last, mixture.plain_above(last_outcome));
  builder.add_infinite(mixture.mixture_above(last_outcome));
  // What neither order tells apart: the kink of the curve at epsilon = 0.
  builder.add_point(0, (1 - mixture.q) * (1 - 2 * mixture.plain_above(0.5)));
  return std::move(builder).finish();
}

}  // namespace covey::privacy
