#include "data/data_builder.hpp"

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <numeric>
#include <utility>

namespace covey::models {

std::size_t held_out_of(std::size_t count, double test_fraction) {
  auto held_out =
      static_cast<std::size_t>(std::llround(test_fraction * static_cast<double>(count)));
  if (test_fraction > 0) held_out = std::max<std::size_t>(held_out, 1);
  return count == 0 ? 0 : std::min(held_out, count - 1);
}

std::size_t split_in_place(std::vector<std::uint32_t>& positions, std::size_t count,
                           double test_fraction, RandomStream random) {
  positions.resize(count);
  std::iota(positions.begin(), positions.end(), 0u);
  random.shuffle(std::span(positions));
  const std::size_t held_out = held_out_of(count, test_fraction);
  const auto test = std::span(positions).first(held_out);
  std::ranges::sort(test);
  // Of a permutation, what is left when some are taken out is known without sorting it.
  std::size_t next_test = 0;
  std::size_t at = held_out;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (next_test < held_out && test[next_test] == i) {
      ++next_test;
    } else {
      positions[at++] = i;
    }
  }
  return held_out;
}

Split split_examples(std::size_t count, double test_fraction, RandomStream random) {
  std::vector<std::uint32_t> positions;
  const auto held_out = static_cast<std::ptrdiff_t>(
      split_in_place(positions, count, test_fraction, std::move(random)));
  const auto middle = positions.begin() + held_out;
  return {{middle, positions.end()}, {positions.begin(), middle}};
}

void FederatedBuilder::reserve(std::size_t train_examples, std::size_t test_examples) {
  train_features_.reserve(train_examples * example_size_);
  test_features_.reserve(test_examples * example_size_);
  train_labels_.reserve(train_examples);
  test_labels_.reserve(test_examples);
}

std::size_t FederatedBuilder::add_owner(std::string name) {
  owners_.emplace_back();
  owner_names_.push_back(std::move(name));
  return owners_.size() - 1;
}

void FederatedBuilder::add_train(std::span<const float> features, std::int32_t label) {
  COVEY_ASSERT(features.size() == example_size_);
  train_features_.insert(train_features_.end(), features.begin(), features.end());
  train_labels_.push_back(label);
}

void FederatedBuilder::add_test(std::span<const float> features, std::int32_t label) {
  COVEY_ASSERT(features.size() == example_size_);
  test_features_.insert(test_features_.end(), features.begin(), features.end());
  test_labels_.push_back(label);
}

void FederatedBuilder::add_train(std::size_t owner, std::span<const float> features,
                                 std::int32_t label) {
  owners_[owner].train.push_back(static_cast<std::uint32_t>(train_labels_.size()));
  add_train(features, label);
}

void FederatedBuilder::add_test(std::size_t owner, std::span<const float> features,
                                std::int32_t label) {
  owners_[owner].test.push_back(static_cast<std::uint32_t>(test_labels_.size()));
  add_test(features, label);
}

Result<FederatedData> FederatedBuilder::finish(std::vector<std::uint32_t> shape,
                                               std::uint32_t classes) && {
  FederatedData data;
  COVEY_ASSIGN(data.train, DataSet::from_floats(shape, std::move(train_features_),
                                                std::move(train_labels_), classes));
  COVEY_ASSIGN(data.test, DataSet::from_floats(std::move(shape), std::move(test_features_),
                                               std::move(test_labels_), classes));
  data.owners = std::move(owners_);
  data.owner_names = std::move(owner_names_);
  return data;
}

}  // namespace covey::models
