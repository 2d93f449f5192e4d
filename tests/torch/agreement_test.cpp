// Covey's own engine against libtorch: the same weights, the same batches, a hundred steps of SGD,
// and losses that agree to 1e-4.
#include <ATen/Parallel.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <covey/models/network.hpp>
#include <covey/random.hpp>

#include "reference_models.hpp"
#include "script_models.hpp"

using namespace covey;
using namespace covey::torch_tests;

namespace {

constexpr std::size_t kBatch = 10;
constexpr std::uint64_t kBatches = 10;  // that training goes through again and again
constexpr double kTolerance = 1e-4;     // relative, of every step's loss

/// Noise with a brighter band for each class. Dense: on empty background the values in a pooling
/// window tie, and which of them is the largest is a matter of the last bit.
Batch images(std::uint64_t seed) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  Batch batch{std::vector<float>(kBatch * 784), std::vector<std::int32_t>(kBatch)};
  for (std::size_t b = 0; b < kBatch; ++b) {
    const auto label = static_cast<std::size_t>(random.below(10));
    batch.labels[b] = static_cast<std::int32_t>(label);
    for (std::size_t i = 0; i < 784; ++i) {
      const double level = i / 79 == label ? 0.8 : 0.2;
      batch.inputs[b * 784 + i] = static_cast<float>(level + random.uniform(-0.2, 0.2));
    }
  }
  return batch;
}

/// Sequences in which the next symbol often follows from the last; the first has padding at its
/// end.
Batch text(std::uint64_t seed, std::size_t steps, std::uint32_t symbols) {
  RandomStream random(seed, RandomPurpose::kDataGeneration);
  Batch batch{std::vector<float>(kBatch * steps), std::vector<std::int32_t>(kBatch * steps)};
  for (std::size_t b = 0; b < kBatch; ++b) {
    auto symbol = static_cast<std::uint32_t>(random.below(symbols));
    for (std::size_t t = 0; t < steps; ++t) {
      batch.inputs[b * steps + t] = static_cast<float>(symbol);
      symbol = random.uniform() < 0.7 ? (symbol * 7 + 1) % symbols
                                      : static_cast<std::uint32_t>(random.below(symbols));
      const bool padding = b == 0 && t + 5 >= steps;
      batch.labels[b * steps + t] = padding ? models::kNoLabel : static_cast<std::int32_t>(symbol);
    }
  }
  return batch;
}

template <typename MakeBatch>
void check_agreement(const std::string& preset, const ModelSpec& spec, float learning_rate,
                     std::uint64_t steps, MakeBatch make_batch) {
  at::set_num_threads(1);
  const auto network = models::Network::make(spec).value();
  ParameterVector weights(network.num_parameters());
  network.initialise(weights.span(), RandomStream(3, RandomPurpose::kModelInitialisation));
  models::Workspace workspace(network, kBatch);
  ReferenceModel reference(preset, network.layout(), weights.span());

  models::SgdStep sgd;
  sgd.learning_rate = learning_rate;
  double first = 0, last = 0, worst = 0;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const Batch batch = make_batch(step % kBatches);
    const double own =
        network.train_step(workspace, batch.inputs, batch.labels, weights.span(), sgd);
    const double theirs = reference.step(kBatch, batch.inputs, batch.labels, learning_rate);
    INFO(preset << " step " << step << ": " << own << " and " << theirs);
    REQUIRE(std::isfinite(own));
    REQUIRE(std::abs(own - theirs) <= kTolerance * theirs);
    worst = std::max(worst, std::abs(own - theirs) / theirs);
    if (step == 0) first = own;
    last = own;
  }
  INFO(preset << ": loss " << first << " to " << last << ", largest relative difference " << worst);
  CHECK(last < first);  // agreement of two that learn nothing would show little
  const std::vector<float> others = reference.weights();
  double distance = 0, norm = 0;
  for (std::size_t i = 0; i < others.size(); ++i) {
    distance += std::pow(static_cast<double>(others[i]) - weights[i], 2);
    norm += std::pow(static_cast<double>(others[i]), 2);
  }
  CHECK(std::sqrt(distance / norm) < 1e-4);
}

}  // namespace

TEST_CASE("The 2nn agrees with libtorch over a hundred steps") {
  check_agreement("2nn", preset_model("2nn", {28, 28, 1}, 10).value(), 0.05f, 100, images);
}

// Its half a million relu and pooling decisions a step (a batch of ten) fall differently now and
// then where two values differ by the last bit; a jump of the gradient follows, which training
// amplifies. Against double precision both sides have such jumps. Small steps keep them below the
// tolerance.
TEST_CASE("The cnn agrees with libtorch over a hundred steps") {
  check_agreement("cnn", preset_model("cnn", {28, 28, 1}, 10).value(), 0.005f, 100, images);
}

TEST_CASE("The char-lstm agrees with libtorch over a hundred steps") {
  check_agreement("char-lstm", preset_model("char-lstm", {80}, 258).value(), 1.47f, 100,
                  [](std::uint64_t step) { return text(step % kBatches, 80, 30); });
}
