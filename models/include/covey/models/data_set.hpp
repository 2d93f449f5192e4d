#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <covey/ids.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>

namespace covey::models {

/// A step of a sequence that has no target: it enters neither loss nor accuracy.
inline constexpr std::int32_t kNoLabel = -1;

/// Labelled examples, held once and shared read-only. Features are kept as they came: floats, or bytes
/// with a scale (images), which takes a quarter of the memory.
class DataSet {
 public:
  DataSet() = default;
  /// features: [n x shape], labels: [n] in [0, classes). Error naming the first bad example.
  static Result<DataSet> from_floats(std::vector<std::uint32_t> shape, std::vector<float> features,
                                     std::vector<std::int32_t> labels, std::uint32_t classes);
  /// A feature's value is byte * scale.
  static Result<DataSet> from_bytes(std::vector<std::uint32_t> shape, std::vector<std::uint8_t> features,
                                    float scale, std::vector<std::int32_t> labels,
                                    std::uint32_t classes);

  /// Sequences of tokens: features [n x steps] in [0, vocabulary), labels [n x steps] in [0,
  /// vocabulary) or kNoLabel where a step has no target (padding).
  static Result<DataSet> from_tokens(std::uint32_t steps, std::vector<std::uint16_t> tokens,
                                     std::vector<std::int32_t> labels, std::uint32_t vocabulary);

  /// Room for examples that the caller writes.
  struct Rows {
    std::span<float> features;       ///< [examples x example_size()]
    std::span<std::int32_t> labels;  ///< [examples]
  };
  /// Becomes a set of `examples` float examples, to be filled through what is returned: finite features,
  /// labels in [0, classes). Buffers only grow, so that a set may be filled again and again.
  Rows refill(std::span<const std::uint32_t> shape, std::uint32_t classes, std::size_t examples);

  std::size_t size() const { return labels_.size() / labels_per_example_; }
  bool empty() const { return labels_.empty(); }
  /// 1, or the steps of a sequence.
  std::size_t labels_per_example() const { return labels_per_example_; }
  /// Features are tokens in [0, vocabulary()); 0: they are numbers.
  std::uint32_t vocabulary() const { return vocabulary_; }
  const std::vector<std::uint32_t>& shape() const { return shape_; }  ///< of one example
  std::size_t example_size() const { return example_size_; }          ///< floats of one example
  std::uint32_t classes() const { return classes_; }
  /// [size() x labels_per_example()]
  std::span<const std::int32_t> labels() const { return labels_; }

  /// Copies the examples `indices` to out_features [indices.size() x example_size()] and out_labels
  /// [indices.size() x labels_per_example()]. Tokens become floats, exactly.
  void gather(std::span<const std::uint32_t> indices, std::span<float> out_features,
              std::span<std::int32_t> out_labels) const;
  /// Asks for the memory of examples that `gather` wants next; of large ones only for their beginnings.
  void prefetch(std::span<const std::uint32_t> indices) const;

 private:
  std::vector<std::uint32_t> shape_;
  std::size_t example_size_ = 0;
  std::uint32_t classes_ = 0;
  std::vector<float> floats_;
  std::vector<std::uint8_t> bytes_;
  float scale_ = 1;
  std::vector<std::uint16_t> tokens_;
  std::uint32_t vocabulary_ = 0;
  std::size_t labels_per_example_ = 1;
  std::vector<std::int32_t> labels_;
};

/// One device's examples: indices into the training and the test set.
struct Shard {
  std::vector<std::uint32_t> train;
  std::vector<std::uint32_t> test;
};

/// Training and test examples, and who owns them where the data says so.
struct FederatedData {
  DataSet train;
  DataSet test;                       ///< may be the held-out parts of all owners together
  std::vector<Shard> owners;          ///< by owner ("natural" data: synthetic, LEAF, CSV with a user column)
  std::vector<std::string> owner_names;
};

/// FedProx's Synthetic(alpha, beta) (Li et al. 2020, section 5.1; the authors' generator): `devices`
/// owners, 60 features, 10 classes; each owner's data split by config.test_fraction.
Result<FederatedData> make_synthetic(const DataConfig& config, std::uint32_t devices, std::uint64_t seed);

/// The same examples, device by device and when they are needed: all of them follow from (seed, device), so a
/// million devices take no memory. Const methods may run on many threads at once.
class SyntheticSource {
 public:
  /// Error naming the key: no devices, or features that would not be finite.
  static Result<SyntheticSource> make(const DataConfig& config, std::uint32_t devices,
                                      std::uint64_t seed);

  std::uint32_t devices() const { return devices_; }
  std::uint64_t num_examples(ClientId device) const;  ///< training and test; one draw
  std::uint64_t num_train(ClientId device) const;
  /// A device's training or test examples, in the order in which make_synthetic has them, to `out`, and 0,
  /// 1, ... to `indices`. Nothing is allocated once both have held as many.
  void train(ClientId device, DataSet& out, std::vector<std::uint32_t>& indices) const;
  void test(ClientId device, DataSet& out, std::vector<std::uint32_t>& indices) const;
  /// Of the first devices, at most `devices` and as many as have `examples` test examples together (one at
  /// least): owners and test examples, and no training examples.
  Result<FederatedData> test_of_first(std::uint32_t devices, std::uint64_t examples) const;

 private:
  SyntheticSource() = default;
  void fill(ClientId device, bool test, DataSet& out, std::vector<std::uint32_t>& indices) const;

  DataConfig config_;
  std::uint32_t devices_ = 0;
  std::uint64_t seed_ = 0;
};

/// What of a data set is wanted: a server evaluates on test examples and needs no others.
enum class DataParts : std::uint8_t { kAll, kTestOnly };

/// MNIST's four idx files, plain or .gz, in `directory`; for kTestOnly the two of the test set.
Result<FederatedData> load_mnist(const std::string& directory, DataParts parts = DataParts::kAll);
/// A table with a header line, numeric features, one label column (class numbers or names) and
/// optionally a user column.
Result<FederatedData> load_csv(const std::string& path, const DataConfig& config, std::uint64_t seed);
/// A directory of LEAF JSON files: `train/*.json` and `test/*.json`, or *.json split by test_fraction.
Result<FederatedData> load_leaf(const std::string& directory, const DataConfig& config, std::uint64_t seed);

/// Plain text cut into sequences of config.steps characters, each to be predicted from those before
/// it. Symbols are the 256 bytes, 256 (begin) and 257 (end). Owners are the speaking roles of a play
/// ("NAME:" alone on a line, speeches apart by empty lines); a text without roles has one owner. The
/// last config.test_fraction of each owner's characters are its test set (McMahan et al. 2017, split
/// in time).
Result<FederatedData> load_text(const std::string& path, const DataConfig& config);

/// The data set a run file names. `data_directory`: from --data or COVEY_DATA; relative paths of the
/// run file are looked up there first, then as given.
/// kTestOnly leaves out the training examples where the data set keeps them apart (MNIST).
Result<FederatedData> load_data(const RunConfig& config, const std::string& data_directory,
                                DataParts parts = DataParts::kAll);

}  // namespace covey::models
