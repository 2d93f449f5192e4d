#pragma once

#include <covey/client/local_data.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace covey::client {

/// What a host application gave as a whole, if it did, else what lies behind. Thread-safe.
class HostData final : public LocalData {
 public:
  explicit HostData(std::unique_ptr<LocalData> behind) : behind_(std::move(behind)) {}

  LocalData& behind() { return *behind_; }
  /// nullptr: what lies behind counts again.
  void set(std::shared_ptr<const models::DataSet> examples) {
    const std::lock_guard lock(mutex_);
    given_ = std::move(examples);
  }

  Result<std::shared_ptr<const models::DataSet>> examples() override {
    if (auto examples = given()) return examples;
    return behind_->examples();
  }
  std::uint64_t num_examples() override {
    if (const auto examples = given()) return examples->size();
    return behind_->num_examples();
  }
  void update_made(const std::shared_ptr<const models::DataSet>& examples, RunId run,
                   RoundNumber round) override {
    behind_->update_made(examples, run, round);  // which knows its own
  }
  void update_counted(RunId run, RoundNumber round) override {
    behind_->update_counted(run, round);
  }

 private:
  std::shared_ptr<const models::DataSet> given() {
    const std::lock_guard lock(mutex_);
    return given_;
  }

  const std::unique_ptr<LocalData> behind_;
  std::mutex mutex_;
  std::shared_ptr<const models::DataSet> given_;
};

}  // namespace covey::client
