#pragma once

#include <covey/model_spec.hpp>
#include <covey/models/engine.hpp>
#include <covey/torch/script.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

/// TorchScript files for tests, written by libtorch itself.
namespace covey::torch_tests {

/// A folder of the test's own, gone with it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// One tensor of a module that a test defines.
struct TensorOf {
  enum class Kind { kParameter, kFrozen, kBuffer, kCounter, kDoubleParameter, kHalfBuffer };
  std::string name;
  std::vector<std::int64_t> sizes;
  Kind kind = Kind::kParameter;
};

/// Saves a module of these tensors (uniform in +-0.1 from `seed`; running variances and counters 1)
/// with the methods in `source`, and returns the path.
std::string save_module(const std::string& path, const std::vector<TensorOf>& tensors,
                        const std::string& source, std::uint64_t seed = 7);

/// Dense layers inputs -> hidden -> classes with relu, weights [in x out]: the flat vector of the
/// native network of the same layers.
std::string save_dense(const std::string& path, std::int64_t inputs, std::int64_t hidden,
                       std::int64_t classes);
/// A convolution with batch normalisation on [2, channels, 8, 8] and a dense layer to 4 classes.
std::string save_batch_norm(const std::string& path);
/// inputs -> 16 -> classes with dropout of one half in between.
std::string save_dropout(const std::string& path, std::int64_t inputs, std::int64_t classes);
/// Embedding and a dense layer: predicts the next of `symbols` at every step.
std::string save_next_token(const std::string& path, std::int64_t symbols);
/// x W W with one W of [4 x 4], in two sub-modules.
std::string save_shared(const std::string& path);

ModelSpec spec_of(const covey::torch::Script& script, std::vector<std::uint32_t> input_shape);
/// The engine for the file at `path`, loaded with the file's own weights and room for 64 examples.
std::unique_ptr<models::Engine> make_loaded(const std::string& path,
                                            std::vector<std::uint32_t> input_shape);
/// Why there is none: the whole sentence.
std::string refusal(const std::string& path, const ModelSpec& spec);

/// Numbers in [0, 1) and labels below `classes`.
struct Batch {
  std::vector<float> inputs;
  std::vector<std::int32_t> labels;
};
Batch random_batch(std::size_t examples, std::size_t example_size, std::uint32_t classes,
                   std::uint64_t seed);

}  // namespace covey::torch_tests
