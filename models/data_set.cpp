#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/models/data_set.hpp>
#include <limits>
#include <utility>

namespace covey::models {
namespace {

/// Product of the extents; error when it is 0 or does not fit.
Result<std::size_t> size_of(const std::vector<std::uint32_t>& shape) {
  std::uint64_t product = 1;
  for (const std::uint32_t extent : shape) {
    product *= extent;
    if (product == 0 || product > std::numeric_limits<std::uint32_t>::max()) {
      return invalid_argument("an example's shape has no features, or more than 2^32");
    }
  }
  return static_cast<std::size_t>(product);
}

Result<void> check_counts(std::size_t features, std::size_t examples, std::size_t example_size) {
  if (examples > std::numeric_limits<std::uint32_t>::max()) {
    return invalid_argument(fmt::format("{} examples; at most 2^32 - 1 are held", examples));
  }
  if (features == examples * example_size) return {};
  return invalid_argument(fmt::format("{} features where {} examples of {} take {}", features,
                                      examples, example_size, examples * example_size));
}

Result<void> check_labels(std::span<const std::int32_t> labels, std::uint32_t classes) {
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0 && static_cast<std::uint32_t>(labels[i]) < classes) continue;
    return invalid_argument(
        fmt::format("example {} has label {}, outside [0, {})", i, labels[i], classes));
  }
  return {};
}

Result<void> check_finite(std::span<const float> features, std::size_t example_size) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (std::size_t start = 0; start < features.size(); start += example_size) {
    const auto example = features.subspan(start, example_size);
    unsigned bad = 0;  // without an early exit, so that the loop is vectorised
    for (const float x : example) bad |= static_cast<unsigned>(!(x <= kLargest && x >= -kLargest));
    if (bad == 0) continue;
    const auto at =
        std::ranges::find_if(example, [](float x) { return !(x <= kLargest && x >= -kLargest); });
    return invalid_argument(fmt::format("feature {} of example {} is {}, not a finite number",
                                        at - example.begin(), start / example_size, *at));
  }
  return {};
}

void scale_bytes(const std::uint8_t* __restrict in, float scale, std::size_t count,
                 float* __restrict out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]) * scale;
}

}  // namespace

Result<DataSet> DataSet::from_floats(std::vector<std::uint32_t> shape, std::vector<float> features,
                                     std::vector<std::int32_t> labels, std::uint32_t classes) {
  DataSet set;
  COVEY_ASSIGN(set.example_size_, size_of(shape));
  COVEY_TRY(check_counts(features.size(), labels.size(), set.example_size_));
  COVEY_TRY(check_labels(labels, classes));
  COVEY_TRY(check_finite(features, set.example_size_));
  set.shape_ = std::move(shape);
  set.classes_ = classes;
  set.floats_ = std::move(features);
  set.labels_ = std::move(labels);
  return set;
}

Result<DataSet> DataSet::from_bytes(std::vector<std::uint32_t> shape,
                                    std::vector<std::uint8_t> features, float scale,
                                    std::vector<std::int32_t> labels, std::uint32_t classes) {
  DataSet set;
  COVEY_ASSIGN(set.example_size_, size_of(shape));
  COVEY_TRY(check_counts(features.size(), labels.size(), set.example_size_));
  COVEY_TRY(check_labels(labels, classes));
  COVEY_TRY(check_finite(std::span(&scale, 1), 1));
  set.shape_ = std::move(shape);
  set.classes_ = classes;
  set.bytes_ = std::move(features);
  set.scale_ = scale;
  set.labels_ = std::move(labels);
  return set;
}

void DataSet::gather(std::span<const std::uint32_t> indices, std::span<float> out_features,
                     std::span<std::int32_t> out_labels) const {
  COVEY_ASSERT(out_features.size() == indices.size() * example_size_);
  COVEY_ASSERT(out_labels.size() == indices.size());
  float* out = out_features.data();
  for (std::size_t i = 0; i < indices.size(); ++i, out += example_size_) {
    const std::size_t index = indices[i];
    COVEY_ASSERT(index < labels_.size());
    out_labels[i] = labels_[index];
    const std::size_t start = index * example_size_;
    if (bytes_.empty()) {
      std::copy_n(floats_.data() + start, example_size_, out);
    } else {
      scale_bytes(bytes_.data() + start, scale_, example_size_, out);
    }
  }
}

}  // namespace covey::models
