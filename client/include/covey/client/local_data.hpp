#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <covey/ids.hpp>
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
  /// An update was made from this snapshot, which is now to be reported: what has to be known where it
  /// is counted, maybe in another process, is on disk afterwards.
  virtual void update_made(const std::shared_ptr<const models::DataSet>& examples, RunId run,
                           RoundNumber round) = 0;
  /// The server counted the update of this round: its examples are not "new" any more. Also of an
  /// update that an earlier process made; said again it changes nothing.
  virtual void update_counted(RunId run, RoundNumber round) = 0;
};

}  // namespace covey::client
