// Usage: run_plugins <sign_mean.so> <fedavgm.so>. Loads both, plays two devices' rounds with each
// and compares with values derived by hand. Exits 0 if all is as expected.

#include <array>
#include <covey/strategies/exact_sum.hpp>
#include <covey/strategies/plugin.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

using namespace covey::strategies;

namespace {

template <typename T>
T take(covey::Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).value();
}

void expect(const char* what, const std::array<float, 2>& got, const std::array<float, 2>& wanted) {
  if (got == wanted) return;
  std::fprintf(stderr, "%s: (%g, %g) instead of (%g, %g)\n", what, static_cast<double>(got[0]),
               static_cast<double>(got[1]), static_cast<double>(wanted[0]),
               static_cast<double>(wanted[1]));
  std::exit(1);
}

struct Model {
  std::array<float, 2> parameters{1, 1};
  std::array<float, 2> state{};
};

// Device 1 moves by (2, -4) with one example, device 2 by (6, -4) with three.
void round(Strategy& strategy, Model& model) {
  const std::array<std::array<float, 2>, 2> moves{{{2, -4}, {6, -4}}};
  const std::array<std::uint64_t, 2> examples{1, 3};
  ExactSum vector(2);
  ExactScalarSum weight;
  for (std::size_t k = 0; k < 2; ++k) {
    std::array<float, 2> trained = model.parameters, update{};
    for (std::size_t i = 0; i < 2; ++i) trained[i] += moves[k][i];
    const LocalOutcome outcome{
        .initial = model.parameters, .trained = trained, .num_examples = examples[k]};
    const Contribution contribution = take(strategy.weigh(outcome));
    if (strategy.sends_difference()) {
      update = moves[k];
    } else {
      take(strategy.fill_update(outcome, update));
    }
    take(vector.add(update, contribution.weight));
    take(weight.add(contribution.weight));
  }
  std::array<double, 2> sum{};
  vector.read(sum);
  auto* sums = dynamic_cast<SumStrategy*>(&strategy);
  if (sums == nullptr) {
    std::fprintf(stderr, "%s is not recognised as a SumStrategy\n",
                 std::string(strategy.name()).c_str());
    std::exit(1);
  }
  take(sums->apply({.vector = sum, .weight = weight.read(), .scalars = {}, .count = 2},
                   {model.parameters, model.state}));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  Registry registry = Registry::with_built_ins();
  take(registry.load_plugin(argv[1]));
  take(registry.load_plugin(argv[2]));

  Model signs;  // mean of signs: (1, -1)
  round(*take(registry.make("sign-mean", {})), signs);
  expect("sign-mean", signs.parameters, {2, 0});

  // FedAvgM, beta = 1/2, eta = 1: mean (5, -4) in both rounds.
  //   round 1: m = (5, -4),      w = (6, -3)
  //   round 2: m = (7.5, -6),    w = (13.5, -9)
  Model momentum;
  const auto fedavgm = take(registry.make("fedavgm", {{"server-momentum", 0.5}}));
  if (fedavgm->state_size(2) != 2) return 1;
  round(*fedavgm, momentum);
  expect("fedavgm, round 1", momentum.parameters, {6, -3});
  round(*fedavgm, momentum);
  expect("fedavgm, round 2", momentum.parameters, {13.5F, -9});
  expect("fedavgm's momentum", momentum.state, {7.5F, -6});

  // Without momentum it is FedAvg, bit for bit.
  Model plain, average;
  round(*take(registry.make("fedavgm", {{"server-momentum", 0}})), plain);
  round(*take(registry.make("fedavg", {})), average);
  expect("fedavgm without momentum", plain.parameters, average.parameters);
  std::puts("ok");
  return 0;
}
