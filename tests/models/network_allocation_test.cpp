// Replaces the program's operator new to count allocations on this thread.
#include <catch2/catch.hpp>
#include <covey/models/network.hpp>
#include <cstdlib>
#include <new>
#include <vector>

#include "network_reference.hpp"

// operator new and delete below fit each other; at -O1 g++ 12 inlines one of them and sees a mismatch.
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
  const std::vector<ModelSpec> specs{
      {{60}, {{kDense, 10, 0}}},
      {{784}, {{kDense, 200, 0}, {kRelu}, {kDense, 200, 0}, {kRelu}, {kDense, 10, 0}}},
      {{12, 12, 1},
       {{kRelu},
        {kConv2d, 8, 5},
        {kRelu},
        {kMaxPool2d, 0, 2},
        {kConv2d, 16, 5},
        {kRelu},
        {kMaxPool2d, 0, 2},
        {kFlatten},
        {kDense, 24, 0},
        {kRelu},
        {kDense, 10, 0}}},
      // in pieces: 70,000 activations an example
      {{64, 64, 1}, {{kConv2d, 16, 1}, {kMaxPool2d, 0, 8}, {kFlatten}, {kDense, 3, 0}}}};
  for (const ModelSpec& spec : specs) {
    const auto network = Network::make(spec);
    REQUIRE(network.ok());
    constexpr std::size_t kBatch = 100;
    auto problem = reference::random_problem(spec, kBatch, 1);
    const std::vector<float> anchor = problem.parameters;
    std::vector<float> gradient(network->num_parameters());
    const std::size_t before_workspace = allocations;
    Workspace workspace(*network, kBatch);
    REQUIRE(allocations > before_workspace);  // the counter counts
    const std::size_t before = allocations;
    const SgdStep step{.learning_rate = 0.01f, .proximal_mu = 0.1f, .anchor = anchor};
    network->train_step(workspace, problem.inputs, problem.labels, problem.parameters, step);
    network->gradient(workspace, problem.inputs, problem.labels, problem.parameters, gradient);
    network->evaluate(workspace, problem.inputs, problem.labels, problem.parameters);
    const std::size_t after = allocations;
    CHECK(after == before);
  }
}
