#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/client/memory_estimate.hpp>
#include <covey/client/trainer.hpp>
#include <covey/encoding.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/network.hpp>
#include <covey/random.hpp>
#include <covey/strategies/registry.hpp>
#include <numeric>

#include "client/daemon/covey_client/self_test_checks.hpp"

namespace covey::client {
namespace {

constexpr std::uint32_t kExamples = 20, kBatch = 10;

/// Of whole numbers only, so that no library of mathematics can make a difference.
Result<models::DataSet> make_examples(const TrainingCase& one) {
  RandomStream random(1, RandomPurpose::kDataGeneration);
  const std::size_t size =
      std::accumulate(one.shape.begin(), one.shape.end(), std::size_t{1}, std::multiplies<>());
  const bool tokens = one.vocabulary > 0;
  std::vector<std::int32_t> labels(kExamples * (tokens ? size : 1));
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(one.classes));
  if (tokens) {
    std::vector<std::uint16_t> features(kExamples * size);
    for (auto& feature : features)
      feature = static_cast<std::uint16_t>(random.below(one.vocabulary));
    return models::DataSet::from_tokens(static_cast<std::uint32_t>(size), std::move(features),
                                        std::move(labels), one.vocabulary);
  }
  std::vector<std::uint8_t> features(kExamples * size);
  for (auto& feature : features) feature = static_cast<std::uint8_t>(random.below(256));
  return models::DataSet::from_bytes(one.shape, std::move(features), 1.0f / 256, std::move(labels),
                                     one.classes);
}

Result<TrainingPlan> make_plan(const TrainingCase& one) {
  TrainingPlan plan;
  COVEY_ASSIGN(plan.model, preset_model(one.preset, one.shape, one.classes));
  plan.strategy = "fedavg";
  plan.batch_size = kBatch;
  plan.learning_rate = 0.05f;
  plan.precision = one.precision;
  COVEY_ASSIGN(const Encoding encoding, model_encoding(plan.precision));
  plan.compressor = to_string(encoding);
  return plan;
}

Result<double> norm_of(const SharedBytes& update, Encoding encoding, const ModelLayout& layout) {
  ParameterVector values(layout.size());
  COVEY_TRY(decode(encoding, layout, update.span(), values.span()));
  double sum = 0;
  for (const float value : values.span()) sum += double{value} * value;
  return std::sqrt(sum);
}

}  // namespace

const std::vector<TrainingCase>& training_cases() {
  static const std::vector<TrainingCase> cases{
      {"logistic", "fp32", {60}, 10, 0, 2.402883, 0.101204, ""},
      {"2nn", "fp32", {28, 28, 1}, 10, 0, 2.316523, 0.079139, ""},
      {"2nn", "bf16", {28, 28, 1}, 10, 0, 2.316390, 0.084631, ""},
      {"2nn",
       "int8",
       {28, 28, 1},
       10,
       0,
       0,
       0,
       "1a66b71c0d2358a6d9a678698690fe1555c73557f460d433ca7567092ca86385"},
      {"dscnn", "fp32", {28, 28, 1}, 10, 0, 2.642782, 0.247555, ""},
      {"autoencoder", "fp32", {64}, 10, 0, 0.329602, 0.018035, ""},
      {"char-lstm", "fp32", {20}, 258, 258, 5.554252, 0.005426, ""},
      {"cnn", "fp32", {28, 28, 1}, 10, 0, 2.333865, 0.074526, ""},
      {"cnn",
       "int8",
       {28, 28, 1},
       10,
       0,
       0,
       0,
       "f50df17c4b6954b284453ed47aab1c785aff7baaa28dbfadd66201a671c4ec37"},
  };
  return cases;
}

Result<std::uint64_t> memory_needed(const TrainingCase& one) {
  COVEY_ASSIGN(const TrainingPlan plan, make_plan(one));
  const MemoryBase base{
      .num_examples = kExamples, .process_bytes = resident_bytes(), .data_bytes = 0};
  COVEY_ASSIGN(const auto needed,
               estimate_memory(plan, strategies::Registry::with_built_ins(), base));
  return needed.peak();
}

Result<std::string> check_training(const TrainingCase& one) {
  COVEY_ASSIGN(const models::DataSet examples, make_examples(one));
  std::vector<std::uint32_t> indices(examples.size());
  std::iota(indices.begin(), indices.end(), 0u);

  TrainingTask task;
  COVEY_ASSIGN(task.plan, make_plan(one));
  COVEY_ASSIGN(const auto network, models::make_network(task.plan.model, one.precision));
  ParameterVector initial(network.layout().size());
  network.initialise(initial.span().first(network.num_parameters()),
                     RandomStream(1, RandomPurpose::kModelInitialisation));
  COVEY_ASSIGN(const Encoding encoding, model_encoding(one.precision));
  task.model = encode(encoding, network.layout(), initial.span());
  initial = {};

  const auto registry = strategies::Registry::with_built_ins();
  SgdTrainer trainer(examples, registry);
  trainer.free_after_training(true);
  trainer.use_examples(indices);
  COVEY_ASSIGN(const auto update, trainer.train(task, {}));
  const std::size_t parameters = network.num_parameters();
  if (!one.update_digest.empty()) {
    if (update.digest.hex() == one.update_digest) {
      return fmt::format("{} parameters, the same bits as everywhere", parameters);
    }
    return failed(fmt::format("the update has the SHA-256 {} and should have {}",
                              update.digest.hex(), one.update_digest));
  }
  COVEY_ASSIGN(const double norm, norm_of(update.update, encoding, network.layout()));
  // Instruction sets round differently: 1e-7 of a value, and more where bfloat16 is between.
  const double tolerance = one.precision == "bf16" ? 1e-2 : 1e-3;
  const auto near = [&](double is, double ought) {
    return std::abs(is - ought) < tolerance * ought;
  };
  if (!near(update.train_loss, one.loss) || !near(norm, one.update_norm)) {
    return failed(
        fmt::format("loss is {:.6f} and should be {:.6f}, the update's norm {:.6f} and {:.6f}",
                    update.train_loss, one.loss, norm, one.update_norm));
  }
  return fmt::format("{} parameters, loss {:.4f}", parameters, update.train_loss);
}

}  // namespace covey::client
