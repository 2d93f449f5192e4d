#include "../../models/memory_plan.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/random.hpp>
#include <limits>
#include <vector>

#include "../../models/workspace.hpp"
#include "network_reference.hpp"
#include "network_specs.hpp"

namespace {

/// Lets this test reach the block of a workspace: an explicit instantiation may name private
/// members.
template <auto Member>
struct Opened {
  friend auto& buffers_of(covey::models::Workspace& workspace) { return *(workspace.*Member); }
};
auto& buffers_of(covey::models::Workspace& workspace);
template struct Opened<&covey::models::Workspace::buffers_>;

}  // namespace

namespace {

using namespace covey;
using namespace covey::models;

std::vector<BufferRequest> random_requests(RandomStream& random) {
  std::vector<BufferRequest> requests(1 + random.below(30));
  for (BufferRequest& request : requests) {
    request.floats = 1 + random.below(random.below(2) == 0 ? 40 : 1000);
    request.first = random.below(20);
    request.last = request.first + random.below(random.below(3) == 0 ? 20 : 4);
  }
  return requests;
}

bool live_together(const BufferRequest& a, const BufferRequest& b) {
  return a.first <= b.last && b.first <= a.last;
}

/// Most floats alive at one moment: no placement needs less.
std::size_t peak(const std::vector<BufferRequest>& requests) {
  std::size_t most = 0;
  for (std::size_t moment = 0; moment < 50; ++moment) {
    std::size_t alive = 0;
    for (const BufferRequest& r : requests) {
      if (r.first <= moment && moment <= r.last) alive += r.floats;
    }
    most = std::max(most, alive);
  }
  return most;
}

void poison(Workspace& workspace) {
  std::ranges::fill(buffers_of(workspace).block.span(), std::numeric_limits<float>::quiet_NaN());
}

}  // namespace

TEST_CASE("buffers that live at the same time are placed apart, with room behind each",
          "[memory]") {
  constexpr std::uint64_t kSeed = 31;
  RandomStream random(kSeed, RandomPurpose::kTraining);
  for (int round = 0; round < 400; ++round) {
    std::vector<BufferRequest> requests = random_requests(random);
    const std::size_t total = place(requests);
    CAPTURE(kSeed, round);
    std::size_t overlaps = 0, misaligned = 0, outside = 0;
    for (const BufferRequest& a : requests) {
      misaligned += a.offset % 16 == 0 ? 0 : 1;
      outside += a.offset + a.floats + kKernelSlack <= total ? 0 : 1;
      for (const BufferRequest& b : requests) {
        if (&a == &b || !live_together(a, b)) continue;
        const bool apart = a.offset + a.floats + kKernelSlack <= b.offset ||
                           b.offset + b.floats + kKernelSlack <= a.offset;
        overlaps += apart ? 0 : 1;
      }
    }
    CHECK(overlaps == 0);
    CHECK(misaligned == 0);
    CHECK(outside == 0);
    CHECK(total >= peak(requests));
  }
}

TEST_CASE("buffers that never meet share their place", "[memory]") {
  std::vector<BufferRequest> requests{{100, 0, 1}, {90, 2, 3}, {80, 4, 4}};
  CHECK(place(requests) == 128);  // 100 + 16 behind, in whole lines of 16
  for (const BufferRequest& request : requests) CHECK(request.offset == 0);
}

TEST_CASE("sharing makes training memory smaller, and evaluation's much smaller", "[memory]") {
  for (const char* name : {"2nn", "cnn", "dscnn", "autoencoder"}) {
    const auto plan = NetworkPlan::make(preset_model(name, {28, 28, 1}, 10).value());
    REQUIRE(plan.ok());
    const MemoryPlan training = MemoryPlan::make(*plan, 10, true);
    const MemoryPlan evaluation = MemoryPlan::make(*plan, 10, false);
    CAPTURE(name, training.floats, training.unshared, evaluation.floats);
    CHECK(training.floats < training.unshared);
    CHECK(evaluation.floats < training.floats);
  }
}

TEST_CASE("memory for a batch grows no faster than the batch", "[memory]") {
  const auto plan = NetworkPlan::make(preset_model("dscnn", {28, 28, 1}, 10).value()).value();
  const std::size_t one = MemoryPlan::make(plan, 1, true).floats;
  CHECK(MemoryPlan::make(plan, 16, true).floats <= 16 * one);
}

TEST_CASE("no result depends on what a workspace held before", "[memory]") {
  const std::string isa = GENERATE("sse2", "avx2", "avx512");
  constexpr std::uint64_t kSeed = 41;
  constexpr std::size_t kBatch = 7;
  const reference::InstructionSet scope(isa);
  for (const auto& [name, spec] : reference::all_specs()) {
    CAPTURE(isa, name, kSeed);
    const auto network = Network::make(spec);
    REQUIRE(network.ok());
    const auto problem = reference::random_problem(spec, kBatch, kSeed);
    Workspace fresh(*network, kBatch);
    Workspace used(*network, kBatch);
    std::vector<float> expected(network->num_parameters()), gradient(network->num_parameters());
    network->gradient(fresh, problem.inputs, problem.labels, problem.parameters, expected);
    poison(used);
    network->gradient(used, problem.inputs, problem.labels, problem.parameters, gradient);
    CHECK(gradient == expected);

    std::vector<float> w = problem.parameters, w_used = problem.parameters;
    network->train_step(fresh, problem.inputs, problem.labels, w, {.learning_rate = 0.1f});
    poison(used);
    network->train_step(used, problem.inputs, problem.labels, w_used, {.learning_rate = 0.1f});
    CHECK(w_used == w);

    poison(used);
    const Evaluation after = network->evaluate(used, problem.inputs, problem.labels, w);
    const Evaluation before = network->evaluate(fresh, problem.inputs, problem.labels, w);
    CHECK(after.loss_sum == before.loss_sum);
    CHECK(after.correct == before.correct);
    CHECK(std::isfinite(after.loss_sum));
  }
}
