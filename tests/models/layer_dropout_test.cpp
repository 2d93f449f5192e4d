#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <covey/models/network.hpp>
#include <string>
#include <vector>

#include "../../models/kernels/kernels.hpp"
#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

using namespace covey;
using namespace covey::models;
using namespace covey::models::reference;

std::vector<float> dropped(const Kernels& kernels, const std::vector<float>& x, std::uint64_t key,
                           float rate) {
  std::vector<float> y(x.size(), -1.0f);
  kernels.dropout(x.data(), x.size(), key, rate, y.data());
  return y;
}

double zeros_in(const std::vector<float>& values) {
  return static_cast<double>(std::ranges::count(values, 0.0f));
}

ModelSpec with_dropout(float rate) {
  return {{12}, {dropout(rate), dense(40), {kTanh}, dropout(rate), dense(3)}};
}

}  // namespace

TEST_CASE("dropout drops its share of values and scales the others", "[layers]") {
  constexpr std::uint64_t kKey = 77;
  constexpr std::size_t kValues = 100'003;
  const std::vector<float> ones(kValues, 1.0f);
  for (const float rate : {0.1f, 0.5f, 0.9f}) {
    const auto y = dropped(selected_kernels(), ones, kKey, rate);
    const double chance = static_cast<double>(rate), n = static_cast<double>(kValues);
    CAPTURE(kKey, rate);
    CHECK(std::abs(zeros_in(y) - chance * n) < 5 * std::sqrt(n * chance * (1 - chance)));
    std::size_t others = 0;
    for (const float v : y) others += v != 0 && v != 1.0f / (1.0f - rate) ? 1 : 0;
    CHECK(others == 0);
  }
}

TEST_CASE("neighbouring values and keys are dropped independently", "[layers]") {
  constexpr std::size_t kValues = 100'000;
  const std::vector<float> ones(kValues, 1.0f);
  const auto y = dropped(selected_kernels(), ones, 5, 0.5f);
  for (const std::uint64_t other :
       {std::uint64_t{6}, std::uint64_t{5} << 32, (std::uint64_t{5} << 32) + 5}) {
    const auto z = dropped(selected_kernels(), ones, other, 0.5f);
    std::size_t agree = 0;
    for (std::size_t i = 0; i < kValues; ++i) agree += (y[i] == 0) == (z[i] == 0) ? 1 : 0;
    CAPTURE(other);
    CHECK(std::abs(static_cast<double>(agree) - 50'000) < 5 * std::sqrt(25'000.0));
  }
  for (const std::size_t lag : {1u, 2u, 16u, 64u, 4096u}) {
    std::size_t agree = 0;
    for (std::size_t i = 0; i + lag < kValues; ++i)
      agree += (y[i] == 0) == (y[i + lag] == 0) ? 1 : 0;
    CAPTURE(lag);
    CHECK(std::abs(static_cast<double>(agree) - static_cast<double>(kValues - lag) / 2) <
          5 * std::sqrt(25'000.0));
  }
}

TEST_CASE("every instruction set drops the same values", "[layers]") {
  std::vector<float> x(1003);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) + 1;
  const auto expected = dropped(*baseline_kernels(), x, 0x123456789abcdefULL, 0.3f);
  for (const char* isa : {"sse2", "avx2", "avx512"}) {
    const InstructionSet scope(isa);
    CHECK(dropped(selected_kernels(), x, 0x123456789abcdefULL, 0.3f) == expected);
  }
}

TEST_CASE("dropout's gradient belongs to its loss", "[layers]") {
  constexpr std::uint64_t kSeed = 3, kKey = 99;
  constexpr float kStep = 1e-2f;
  const ModelSpec spec = with_dropout(0.4f);
  const Network network = Network::make(spec).value();
  Problem problem = random_problem(spec, 9, kSeed);
  Workspace workspace(network, 9);
  std::vector<float> gradient(network.num_parameters()), ignored(network.num_parameters());
  const auto loss = [&] {
    return network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, ignored,
                            kKey);
  };
  network.gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient, kKey);
  for (std::size_t i = 0; i < gradient.size(); i += 7) {
    const float before = problem.parameters[i];
    problem.parameters[i] = before + kStep;
    const double above = loss();
    problem.parameters[i] = before - kStep;
    const double below = loss();
    problem.parameters[i] = before;
    CAPTURE(kSeed, i);
    // float32 losses: 1e-7 / (2 * kStep); truncation kStep^2 / 6 times a third derivative
    CHECK((above - below) / (2 * static_cast<double>(kStep)) ==
          Approx(static_cast<double>(gradient[i])).margin(2e-4));
  }
}

TEST_CASE("a step's key decides what it drops, evaluation drops nothing", "[layers]") {
  constexpr std::uint64_t kSeed = 4;
  const ModelSpec spec = with_dropout(0.5f);
  ModelSpec without = spec;
  without.layers.erase(without.layers.begin());
  without.layers.erase(without.layers.begin() + 2);
  const Network network = Network::make(spec).value();
  const Network plain = Network::make(without).value();
  const Problem problem = random_problem(spec, 8, kSeed);
  Workspace workspace(network, 8), plain_workspace(plain, 8);
  const auto step = [&](std::uint64_t key) {
    std::vector<float> w = problem.parameters;
    network.train_step(workspace, problem.inputs, problem.labels, w, {.random_key = key});
    return w;
  };
  CHECK(step(1) == step(1));
  CHECK(step(1) != step(2));
  const auto evaluate = [&](const Network& n, Workspace& w) {
    return n.evaluate(w, problem.inputs, problem.labels, problem.parameters).loss_sum;
  };
  CHECK(evaluate(network, workspace) == evaluate(plain, plain_workspace));
}

TEST_CASE("what is dropped does not depend on how a batch is cut", "[layers]") {
  constexpr std::uint64_t kSeed = 5;
  constexpr std::size_t kBatch = 80;
  // 60,000 values and as many gradients an example: a batch of 80 goes through in pieces.
  const ModelSpec wide{{64}, {dropout(0.5f), dense(2), dense(60'000), dense(2)}};
  const Network network = Network::make(wide).value();
  Problem problem = random_problem(wide, kBatch, kSeed);
  Workspace whole_workspace(network, {.max_batch = 16, .keeps_gradient = true});
  Workspace cut_workspace(network, {.max_batch = kBatch, .keeps_gradient = true});
  REQUIRE(cut_workspace.bytes() < 4 * whole_workspace.bytes());  // not room for 80 at once
  // Every example is the first: only masks tell them apart.
  for (std::size_t b = 1; b < kBatch; ++b) {
    std::copy_n(problem.inputs.begin(), 64,
                problem.inputs.begin() + static_cast<std::ptrdiff_t>(b) * 64);
    problem.labels[b] = problem.labels[0];
  }
  std::vector<float> gradient(network.num_parameters());
  const auto loss = [&](Workspace& workspace, std::size_t batch) {
    return network.gradient(workspace, std::span(problem.inputs).first(batch * 64),
                            std::span(problem.labels).first(batch), problem.parameters, gradient,
                            7);
  };
  const double first = loss(whole_workspace, 16);
  const double all = loss(cut_workspace, kBatch);
  CHECK(loss(cut_workspace, 16) == first);
  // Were masks drawn by an example's place within its piece, the means would be the same.
  CHECK(std::abs(all - first) > 1e-4);
}
