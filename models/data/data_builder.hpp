#pragma once

#include <covey/models/data_set.hpp>
#include <covey/random.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace covey::models {

/// More classes than this come from a wrong column or a hostile file, not from a classifier.
inline constexpr std::uint32_t kMaxClasses = 1 << 16;

/// Positions of one owner's examples, in ascending order.
struct Split {
  std::vector<std::uint32_t> train;
  std::vector<std::uint32_t> test;
};

/// Holds out round(test_fraction * count) of `count` examples at random: at least one where the
/// fraction is positive, and never the last one left for training.
Split split_examples(std::size_t count, double test_fraction, RandomStream random);

/// How many of `count` examples that split holds out.
std::size_t held_out_of(std::size_t count, double test_fraction);
/// The same split in a buffer that is kept: positions.first(held_out_of(...)) are the test's, the
/// others the training's, each ascending. Returns how many are held out.
std::size_t split_in_place(std::vector<std::uint32_t>& positions, std::size_t count,
                           double test_fraction, RandomStream random);

/// Collects examples owner by owner into one training and one test set.
class FederatedBuilder {
 public:
  explicit FederatedBuilder(std::size_t example_size) : example_size_(example_size) {}

  void reserve(std::size_t train_examples, std::size_t test_examples);
  /// The number of the new owner.
  std::size_t add_owner(std::string name);
  void add_train(std::size_t owner, std::span<const float> features, std::int32_t label);
  void add_test(std::size_t owner, std::span<const float> features, std::int32_t label);
  /// An example that no owner holds.
  void add_train(std::span<const float> features, std::int32_t label);
  void add_test(std::span<const float> features, std::int32_t label);

  Result<FederatedData> finish(std::vector<std::uint32_t> shape, std::uint32_t classes) &&;

 private:
  std::size_t example_size_;
  std::vector<float> train_features_;
  std::vector<float> test_features_;
  std::vector<std::int32_t> train_labels_;
  std::vector<std::int32_t> test_labels_;
  std::vector<Shard> owners_;
  std::vector<std::string> owner_names_;
};

}  // namespace covey::models
