#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <covey/models/data_set.hpp>
#include <covey/result.hpp>

namespace covey::client {

/// The examples of a device, which may grow while it takes part. Thread-safe.
class LocalData {
 public:
  virtual ~LocalData() = default;

  /// What the next training is to use: immutable, shared, valid as long as it is held. Error where there
  /// is nothing to train on (a sentence for the server and the log).
  virtual Result<std::shared_ptr<const models::DataSet>> examples() = 0;
  /// How many examples that would be now; 0: nothing to train on, so the device does not check in.
  virtual std::uint64_t num_examples() = 0;
  /// The update made from this snapshot was counted by the server: its examples are not "new" any more.
  virtual void trained_on(const std::shared_ptr<const models::DataSet>& examples) = 0;
};

}  // namespace covey::client
