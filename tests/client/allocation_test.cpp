// The sanitizers count allocations in their own way: there this file is empty.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COVEY_SANITIZED 1
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(COVEY_SANITIZED)

#include <atomic>
#include <catch2/catch.hpp>
#include <covey/client/trainer.hpp>
#include <cstdlib>
#include <new>
#include <numeric>

namespace {

thread_local std::size_t allocations = 0;

void* allocate(std::size_t size) {
  ++allocations;
  void* p = std::malloc(size == 0 ? 1 : size);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void* allocate(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto align = static_cast<std::size_t>(alignment);
  void* p = std::aligned_alloc(align, (size + align - 1) / align * align);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

// Of the whole test program: what is counted is what the library asks for.
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return allocate(size, alignment);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

TEST_CASE("after the first round a training allocates for its update, nothing per step") {
  using namespace covey;
  constexpr std::uint32_t kExamples = 60;
  std::vector<float> features(kExamples * 4, 0.5f);
  std::vector<std::int32_t> labels(kExamples);
  for (std::uint32_t i = 0; i < kExamples; ++i) labels[i] = static_cast<std::int32_t>(i % 3);
  const auto data = *models::DataSet::from_floats({4}, std::move(features), std::move(labels), 3);
  const auto registry = strategies::Registry::with_built_ins();
  std::vector<std::uint32_t> indices(kExamples);
  std::iota(indices.begin(), indices.end(), 0u);

  client::TrainingTask task;
  task.plan.strategy = "qfedavg";
  task.plan.strategy_parameters = {{"q", 1.0}};
  task.plan.model = *preset_model("2nn", {4}, 3);
  task.plan.batch_size = 7;
  const auto network = *models::Network::make(task.plan.model);
  task.model = encode_fp32(ParameterVector(network.num_parameters()).span());

  client::SgdTrainer trainer(data, registry);
  trainer.use_examples(indices);
  const auto allocations_of = [&](std::uint32_t epochs) {
    task.plan.local_epochs = epochs;
    const std::size_t before = allocations;
    const auto trained = trainer.train(task, {});
    REQUIRE(trained);
    return allocations - before;
  };
  const std::size_t first = allocations_of(1);
  const std::size_t few_steps = allocations_of(1);
  const std::size_t many_steps = allocations_of(10);
  CHECK(few_steps < first);
  CHECK(few_steps == many_steps);
  CHECK(few_steps <= 5);  // the update's bytes and their owner, the scalars
}

#endif
