// Coordinate-wise median: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal
// Statistical Rates" (arXiv:1803.01498), Definition 1 and Algorithm 1, option I.
//
// Device k: as FedAvg, contributes u_k = w_k - w^t. Its weight is not used: a device that lies
// about
//           its number of examples must gain nothing.
// Server:   w^{t+1}[j] = w^t[j] + median_k u_k[j]; of an even number the mean of the two middle
// ones.
//           (The median of models is w^t plus the median of updates.)

#include <algorithm>
#include <covey/strategies/registry.hpp>
#include <vector>

#include "built_in.hpp"

namespace covey::strategies {
namespace {

// Updates may be mapped files larger than memory together: a block of coordinates is gathered from
// all of them at a time. 1024 floats are a page of each; 2^20 floats bound the block to 4 MiB.
constexpr std::size_t kBlockCoordinates = 1024;
constexpr std::size_t kBlockValues = std::size_t{1} << 20;

// Reorders `values`, which must not be empty.
double median(std::span<float> values) {
  const std::size_t middle = values.size() / 2;
  const auto upper = values.begin() + static_cast<std::ptrdiff_t>(middle);
  std::nth_element(values.begin(), upper, values.end());
  if (values.size() % 2 == 1) return static_cast<double>(*upper);
  const float lower = *std::max_element(values.begin(), upper);
  return 0.5 * (static_cast<double>(lower) + static_cast<double>(*upper));
}

class FedMedian final : public IndividualStrategy {
 public:
  std::string_view name() const override { return "fedmedian"; }

  // Device half: plain SGD, and the default contribution.

  Result<void> aggregate(std::span<const IndividualUpdate> updates, ServerModel model) override {
    if (updates.empty()) return failed("the median of no updates: the round has no contribution");
    const std::size_t count = updates.size();
    const std::size_t size = model.parameters.size();
    const std::size_t block = std::clamp(kBlockValues / count, std::size_t{16}, kBlockCoordinates);
    std::vector<float> gathered(block * count);  // [coordinate][update]
    for (std::size_t begin = 0; begin < size; begin += block) {
      const std::size_t length = std::min(block, size - begin);
      for (std::size_t k = 0; k < count; ++k) {
        COVEY_ASSERT(updates[k].update.size() == size);
        const auto part = updates[k].update.subspan(begin, length);
        for (std::size_t j = 0; j < length; ++j) gathered[j * count + k] = part[j];
      }
      for (std::size_t j = 0; j < length; ++j) {
        float& parameter = model.parameters[begin + j];
        const double step = median(std::span(gathered).subspan(j * count, count));
        parameter = static_cast<float>(static_cast<double>(parameter) + step);
      }
    }
    return {};
  }
};

}  // namespace

Result<std::unique_ptr<Strategy>> make_fedmedian(const Parameters& parameters) {
  COVEY_TRY(ParameterReader(parameters).finish("fedmedian"));
  return std::unique_ptr<Strategy>(std::make_unique<FedMedian>());
}

}  // namespace covey::strategies
