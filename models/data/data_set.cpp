#include <fmt/format.h>

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/models/data_set.hpp>
#include <limits>
#include <utility>

namespace covey::models {
namespace {

/// Product of the extents; error when it is 0 or does not fit.
Result<std::size_t> size_of(std::span<const std::uint32_t> shape) {
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

/// kNoLabel stands at steps without a target.
Result<void> check_step_labels(std::span<const std::int32_t> labels, std::uint32_t steps,
                               std::uint32_t vocabulary) {
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] == kNoLabel) continue;
    if (labels[i] >= 0 && static_cast<std::uint32_t>(labels[i]) < vocabulary) continue;
    return invalid_argument(fmt::format("step {} of example {} has label {}, outside [0, {})",
                                        i % steps, i / steps, labels[i], vocabulary));
  }
  return {};
}

Result<void> check_tokens(std::span<const std::uint16_t> tokens, std::uint32_t steps,
                          std::uint32_t vocabulary) {
  const auto bad = std::ranges::find_if(tokens, [&](auto token) { return token >= vocabulary; });
  if (bad == tokens.end()) return {};
  const auto at = static_cast<std::size_t>(bad - tokens.begin());
  return invalid_argument(fmt::format("step {} of example {} is token {}, outside [0, {})",
                                      at % steps, at / steps, *bad, vocabulary));
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

Result<DataSet> DataSet::from_tokens(std::uint32_t steps, std::vector<std::uint16_t> tokens,
                                     std::vector<std::int32_t> labels, std::uint32_t vocabulary) {
  constexpr std::uint32_t kMaxVocabulary = 1 << 16;  // what a token's 16 bits can name
  if (vocabulary == 0 || vocabulary > kMaxVocabulary) {
    return invalid_argument(
        fmt::format("a vocabulary of {} symbols; 1 to {} work", vocabulary, kMaxVocabulary));
  }
  DataSet set;
  COVEY_ASSIGN(set.example_size_, size_of(std::span(&steps, 1)));
  if (tokens.size() % steps != 0 || labels.size() != tokens.size()) {
    return invalid_argument(fmt::format(
        "{} tokens and {} labels; sequences of {} steps have {} of each, one label a step",
        tokens.size(), labels.size(), steps, steps));
  }
  COVEY_TRY(check_counts(tokens.size(), tokens.size() / steps, set.example_size_));
  COVEY_TRY(check_tokens(tokens, steps, vocabulary));
  COVEY_TRY(check_step_labels(labels, steps, vocabulary));
  set.shape_ = {steps};
  set.classes_ = vocabulary;
  set.vocabulary_ = vocabulary;
  set.labels_per_example_ = steps;
  set.tokens_ = std::move(tokens);
  set.labels_ = std::move(labels);
  return set;
}

DataSet::Rows DataSet::refill(std::span<const std::uint32_t> shape, std::uint32_t classes,
                              std::size_t examples) {
  const auto size = size_of(shape);
  COVEY_ASSERT(size.ok());
  shape_.assign(shape.begin(), shape.end());
  example_size_ = *size;
  classes_ = classes;
  bytes_.clear();
  tokens_.clear();
  vocabulary_ = 0;
  labels_per_example_ = 1;
  floats_.resize(examples * example_size_);
  labels_.resize(examples);
  return {floats_, labels_};
}

void DataSet::prefetch(std::span<const std::uint32_t> indices) const {
  constexpr std::size_t kLine = 64;      // bytes that come together
  constexpr std::size_t kMostLines = 8;  // of an example; the hardware notices what goes on behind
  constexpr std::size_t kMostExamples = 16;  // more would push each other out of the queue
  const std::size_t feature = !tokens_.empty()  ? sizeof(tokens_[0])
                              : !bytes_.empty() ? 1
                                                : sizeof(float);
  const char* base = !tokens_.empty()  ? reinterpret_cast<const char*>(tokens_.data())
                     : !bytes_.empty() ? reinterpret_cast<const char*>(bytes_.data())
                                       : reinterpret_cast<const char*>(floats_.data());
  const std::size_t bytes = example_size_ * feature;
  for (const std::size_t index : indices.first(std::min(indices.size(), kMostExamples))) {
    const char* row = base + index * bytes;
    for (std::size_t line = 0; line < std::min(bytes, kMostLines * kLine); line += kLine) {
      __builtin_prefetch(row + line);
    }
    __builtin_prefetch(labels_.data() + index * labels_per_example_);
  }
}

void DataSet::gather(std::span<const std::uint32_t> indices, std::span<float> out_features,
                     std::span<std::int32_t> out_labels) const {
  COVEY_ASSERT(out_features.size() == indices.size() * example_size_);
  COVEY_ASSERT(out_labels.size() == indices.size() * labels_per_example_);
  float* out = out_features.data();
  std::int32_t* labels = out_labels.data();
  for (const std::size_t index : indices) {
    COVEY_ASSERT(index < size());
    std::copy_n(labels_.data() + index * labels_per_example_, labels_per_example_, labels);
    const std::size_t start = index * example_size_;
    if (vocabulary_ != 0) {
      std::copy_n(tokens_.data() + start, example_size_, out);  // below 2^16: exact in a float
    } else if (bytes_.empty()) {
      std::copy_n(floats_.data() + start, example_size_, out);
    } else {
      scale_bytes(bytes_.data() + start, scale_, example_size_, out);
    }
    out += example_size_;
    labels += labels_per_example_;
  }
}

}  // namespace covey::models
