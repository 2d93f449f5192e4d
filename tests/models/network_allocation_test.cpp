// Replaces the program's operator new to count allocations on this thread.
#include <catch2/catch.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/network.hpp>
#include <covey/models/optimizer.hpp>
#include <cstdlib>
#include <new>
#include <vector>

#include "network_reference.hpp"
#include "network_specs.hpp"

// operator new and delete below fit each other; at -O1 g++ 12 inlines one of them and sees a
// mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

namespace {

thread_local std::size_t allocations = 0;

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  // aligned_alloc wants a multiple of the alignment
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* p = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (p == nullptr) std::abort();
  return p;
}

}  // namespace

/// For the other files of this program.
std::size_t allocations_on_this_thread() { return allocations; }

void* operator new(std::size_t size) { return counted(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new[](std::size_t size) { return counted(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return counted(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return counted(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace covey;
using namespace covey::models;
using enum LayerKind;

}  // namespace

TEST_CASE("training, gradients and evaluation allocate nothing, from the first step on",
          "[network]") {
  std::vector<reference::NamedSpec> specs = reference::all_specs();
  // in pieces: 70,000 activations an example
  specs.push_back({"pieces",
                   {{64, 64, 1},
                    {reference::convolution(16, 1),
                     reference::max_pool(8),
                     reference::dropout(0.5f),
                     {kFlatten},
                     reference::dense(3)}}});
  for (const auto& [name, spec] : specs) {
    CAPTURE(name);
    const auto network = Network::make(spec);
    REQUIRE(network.ok());
    constexpr std::size_t kBatch = 100;
    auto problem = reference::random_problem(spec, kBatch, 1);
    const std::vector<float> anchor = problem.parameters;
    std::vector<float> gradient(network->num_parameters());
    const std::size_t before_workspace = allocations;
    Workspace workspace(*network, {.max_batch = kBatch, .keeps_gradient = true});
    Optimizer optimizer({.kind = OptimizerKind::kAdamW, .clip_norm = 1}, gradient.size());
    REQUIRE(allocations > before_workspace);  // the counter counts
    const std::size_t before = allocations;
    const SgdStep step{.learning_rate = 0.01f, .proximal_mu = 0.1f, .anchor = anchor};
    network->train_step(workspace, problem.inputs, problem.labels, problem.parameters, step);
    network->train_step(workspace, problem.inputs, problem.labels, problem.parameters,
                        {.optimizer = &optimizer});
    network->gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    network->evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
    const std::size_t after = allocations;
    CHECK(after == before);
  }
}

TEST_CASE("a step of quantisation-aware training allocates nothing", "[qat]") {
  const ModelSpec spec{{12, 12, 1},
                       {reference::convolution(8, 5),
                        {kRelu},
                        reference::max_pool(2),
                        {kFlatten},
                        reference::dense(24),
                        {kRelu},
                        reference::dense(10)}};
  constexpr std::size_t kBatch = 10;
  const auto problem = reference::random_problem(spec, kBatch, 1);
  auto engine = std::move(*make_engine(spec, "qat-int8"));
  engine->reserve(kBatch);
  std::vector<float> initial = problem.parameters;
  initial.resize(engine->layout().size());
  REQUIRE(engine->load(encode_fp32(initial).span()).ok());
  engine->begin_training({}, RandomStream(1, RandomPurpose::kTrainingStep));
  const std::size_t before = allocations;
  for (int step = 0; step < 3; ++step) {
    engine->train_step(problem.inputs, problem.labels, 0.01f, 0.1f);
  }
  const std::size_t after = allocations;
  CHECK(after == before);
}
