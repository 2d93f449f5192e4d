// Processor time of one training step, one core: train_bench [model...], COVEY_ISA lowers the
// kernels. The rate counts every operation of the definition; a convolution's backward pass skips
// the zeros that relu and pooling leave, so it can exceed what the processor has.
#include <algorithm>
#include <covey/models/network.hpp>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

namespace {

struct Case {
  std::string model;
  std::uint32_t inputs;
  std::uint32_t classes = 10;
  std::size_t evaluated = 500;  ///< examples
};

/// Of this process, which has one thread: other programs on the machine do not count.
double processor_microseconds() { return static_cast<double>(std::clock()) * 1e6 / CLOCKS_PER_SEC; }

/// Median over `repeats` of the time per call of `body`, each repeat at least 50 ms long.
template <typename F>
double median_microseconds(F body) {
  constexpr int kRepeats = 9;
  constexpr int kCallsBetweenLooks = 8;
  constexpr double kLeastMicroseconds = 50'000;
  std::vector<double> times;
  body();
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const double start = processor_microseconds();
    int calls = 0;
    do {
      for (int i = 0; i < kCallsBetweenLooks; ++i) body();
      calls += kCallsBetweenLooks;
    } while (processor_microseconds() - start < kLeastMicroseconds);
    times.push_back((processor_microseconds() - start) / calls);
  }
  std::nth_element(times.begin(), times.begin() + kRepeats / 2, times.end());
  return times[kRepeats / 2];
}

void measure(const Case& chosen) {
  using namespace covey;
  constexpr std::size_t kBatch = 10;
  const std::size_t evaluated = chosen.evaluated;
  const auto spec = preset_model(chosen.model, {chosen.inputs}, chosen.classes).value();
  const auto network = models::Network::make(spec).value();
  ParameterVector parameters(network.num_parameters());
  RandomStream random(1, RandomPurpose::kTraining);
  network.initialise(parameters.span(), RandomStream(1, RandomPurpose::kModelInitialisation));
  std::vector<float> inputs(evaluated * network.inputs());
  std::vector<std::int32_t> labels(evaluated * network.predictions());
  for (float& x : inputs) {
    x = network.vocabulary() == 0 ? static_cast<float>(random.uniform())
                                  : static_cast<float>(random.below(network.vocabulary()));
  }
  for (auto& label : labels) label = static_cast<std::int32_t>(random.below(chosen.classes));
  const std::span<const float> all_inputs(inputs);
  const std::span<const std::int32_t> all_labels(labels);

  models::Workspace training(network, kBatch);
  const models::SgdStep step{.learning_rate = 0.01f};
  std::size_t batch = 0;
  const double train = median_microseconds([&] {
    const std::size_t first = batch++ % (evaluated / kBatch) * kBatch;
    network.train_step(
        training, all_inputs.subspan(first * network.inputs(), kBatch * network.inputs()),
        all_labels.subspan(first * network.predictions(), kBatch * network.predictions()),
        parameters.span(), step);
  });
  models::Workspace evaluating(network, evaluated);
  const double evaluate = median_microseconds(
      [&] { network.evaluate(evaluating, all_inputs, all_labels, parameters.span()); });
  const double gflops = network.training_flops_per_example() * kBatch / train / 1e3;
  std::printf("%s %s: train B=%zu %.2f us/step (%.1f GFLOP/s), evaluate %zu examples %.0f us\n",
              models::kernel_instruction_set(), chosen.model.c_str(), kBatch, train, gflops,
              evaluated, evaluate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Case& chosen :
       {Case{"logistic", 60}, Case{"2nn", 784}, Case{"cnn", 784}, Case{"char-lstm", 80, 258, 50}}) {
    const bool wanted = argc == 1 || std::find(argv + 1, argv + argc, chosen.model) != argv + argc;
    if (wanted) measure(chosen);
  }
}
