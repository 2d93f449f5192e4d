#include <covey/assert.hpp>
#include <covey/privacy/sum_figures.hpp>

namespace covey::privacy {
namespace {

// weight, num_examples, steps, loss, clipped_weights, both norms; and clipped_coordinates, which is
// last because it is only known when the vector has been encoded.
constexpr std::size_t kLeading = 7;
constexpr std::size_t kFigures = kLeading + 1;

}  // namespace

std::size_t num_sum_scalars(const PrivacyPlan& plan, std::size_t strategy_scalars) {
  if (plan.enabled()) return plan.clip == ClipKind::kAdaptive ? 1 : 0;
  return kFigures + strategy_scalars;
}

std::vector<double> SumFigures::to_scalars(const PrivacyPlan& plan) const {
  if (plan.enabled()) {
    return plan.clip == ClipKind::kAdaptive ? std::vector<double>{unclipped}
                                            : std::vector<double>{};
  }
  std::vector<double> all{weight,          num_examples, steps,       loss,
                          clipped_weights, squared_norm, quartic_norm};
  all.insert(all.end(), scalars.begin(), scalars.end());
  all.push_back(clipped_coordinates);
  return all;
}

SumFigures SumFigures::from_scalars(const PrivacyPlan& plan, std::span<const double> all) {
  SumFigures figures;
  if (plan.enabled()) {
    COVEY_ASSERT(all.size() == num_sum_scalars(plan, 0));
    if (!all.empty()) figures.unclipped = all[0];
    return figures;
  }
  COVEY_ASSERT(all.size() >= kFigures);
  figures.weight = all[0];
  figures.num_examples = all[1];
  figures.steps = all[2];
  figures.loss = all[3];
  figures.clipped_weights = all[4];
  figures.squared_norm = all[5];
  figures.quartic_norm = all[6];
  figures.scalars.assign(all.begin() + kLeading, all.end() - 1);
  figures.clipped_coordinates = all.back();
  return figures;
}

}  // namespace covey::privacy
