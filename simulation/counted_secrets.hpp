#pragma once

#include <algorithm>
#include <covey/privacy/secret.hpp>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace covey::simulation {

/// A seeded stream of secrets that knows how far it was read, so that a run which goes on draws
/// what it would have drawn.
class CountedSecrets final : public privacy::SecretSource {
 public:
  CountedSecrets(std::unique_ptr<privacy::SecretSource> source,
                 std::shared_ptr<std::uint64_t> count)
      : source_(std::move(source)), count_(std::move(count)) {}

  Result<void> fill(std::span<std::byte> bytes) override {
    *count_ += bytes.size();
    return source_->fill(bytes);
  }

  /// Reads until `count` bytes were read in all.
  Result<void> skip_to(std::uint64_t count) {
    std::vector<std::byte> unused(1 << 16);
    while (*count_ < count) {
      const auto length =
          static_cast<std::size_t>(std::min<std::uint64_t>(unused.size(), count - *count_));
      COVEY_TRY(fill(std::span(unused).first(length)));
    }
    return {};
  }

 private:
  std::unique_ptr<privacy::SecretSource> source_;
  std::shared_ptr<std::uint64_t> count_;
};

}  // namespace covey::simulation
