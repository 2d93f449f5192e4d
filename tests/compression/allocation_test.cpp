// The sanitizers count allocations in their own way: there this file is empty.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COVEY_SANITIZED 1
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(COVEY_SANITIZED)

#include <cstdlib>
#include <new>

#include "compression_support.hpp"

namespace {

thread_local std::size_t allocations = 0;
thread_local std::size_t allocated_bytes = 0;

void* allocate(std::size_t size) {
  ++allocations;
  allocated_bytes += size;
  void* p = std::malloc(size == 0 ? 1 : size);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

// Of the whole test program: what is counted is what the library asks for.
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

using namespace covey;
using namespace covey::compression;
using namespace covey::compression::testing;

TEST_CASE("a compressor in use allocates its result and nothing else") {
  const std::string spec = GENERATE(from_range(all_specs()));
  CAPTURE(kSeed, spec);
  constexpr std::size_t kSize = 20032;
  const auto values = heavy_vector(kSize);
  const auto compressor = make(spec, kSize);
  std::vector<float> out(kSize);
  SharedBytes bytes = compressor->encode(values, kName);
  REQUIRE(compressor->decode(bytes.span(), kName, out).ok());
  // The bytes and what counts their holders; those of the method within zstd; int8's scales.
  const bool int8 = spec.starts_with("int8");
  const std::size_t expected = 2 + (spec.ends_with("+zstd") ? 2 : 0) + (int8 ? 1 : 0);
  const std::size_t before = allocations;
  bytes = compressor->encode(values, kName);
  const std::size_t encoding = allocations - before;
  const bool decoded = compressor->decode(bytes.span(), kName, out).ok();
  const std::size_t decoding = allocations - before - encoding;
  CHECK(decoded);
  CHECK(encoding == expected);
  CHECK(decoding == (int8 ? 1 : 0));
}

TEST_CASE("a compressor that is only asked for its sizes allocates nothing of the model's size") {
  const std::string spec = GENERATE(from_range(all_specs()), std::string("top-k:1"),
                                    std::string("random-k:1"));
  CAPTURE(spec);
  // Nobody has such a model: 4 GB of fp32.
  constexpr std::size_t kSize = std::size_t{1} << 30;
  const std::size_t before = allocated_bytes;
  const std::size_t largest = make(spec, kSize)->sizes().max;
  const std::size_t allocated = allocated_bytes - before;
  CHECK(largest > 0);
  CHECK(allocated < kSize / 4096);
}

#endif
