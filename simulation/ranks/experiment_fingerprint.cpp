#include "experiment_fingerprint.hpp"

#include <algorithm>
#include <covey/messages.hpp>
#include <span>
#include <vector>

namespace covey::simulation {
namespace {

// Another file under the same name differs nearly everywhere: a few examples of some devices show
// it, and take milliseconds.
constexpr std::uint32_t kSampledDevices = 64;
constexpr std::size_t kSampledExamples = 4;  // of each of them

template <typename T>
void add(Sha256& hash, std::span<const T> values) {
  hash.update(std::as_bytes(values));
}

void add_number(Sha256& hash, std::uint64_t value) { add<std::uint64_t>(hash, {&value, 1}); }

void add_examples(Sha256& hash, const Experiment::Examples& examples) {
  const models::DataSet& data = *examples.data;
  const auto sample = examples.indices.first(std::min(kSampledExamples, examples.indices.size()));
  std::vector<float> features(sample.size() * data.example_size());
  std::vector<std::int32_t> labels(sample.size() * data.labels_per_example());
  data.gather(sample, features, labels);
  add<std::uint32_t>(hash, examples.indices);
  add<float>(hash, features);
  add<std::int32_t>(hash, labels);
}

}  // namespace

Digest fingerprint(const Experiment& experiment) {
  Sha256 hash;
  const std::string run_file = to_toml(experiment.config);
  add<char>(hash, run_file);
  add<std::uint8_t>(hash, digest_of(experiment.plan).bytes);
  const std::uint32_t population = experiment.population();
  add_number(hash, experiment.layout.size());
  add_number(hash, population);
  for (std::uint32_t i = 0; i < population; ++i) {
    add_number(hash, experiment.num_examples(static_cast<ClientId>(i)));
  }
  const std::uint32_t stride = std::max(1U, population / kSampledDevices);
  Experiment::Scratch scratch;
  for (std::uint32_t i = 0; i < population; i += stride) {
    const auto client = static_cast<ClientId>(i);
    if (experiment.num_examples(client) == 0) continue;
    add_examples(hash, experiment.training_examples(client, scratch));
  }
  return hash.finish();
}

}  // namespace covey::simulation
