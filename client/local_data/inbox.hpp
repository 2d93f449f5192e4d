#pragma once

#include <covey/client/example_stream.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace covey::client {

struct InboxOptions {
  std::string directory;  ///< where tables appear; may be missing
  std::string label;      ///< their column of the class
  std::vector<std::string> classes;
};

/// A stream that other programs of the device feed: tables (*.csv) that are moved into a directory
/// are taken in order of their names whenever the examples are asked for. One that cannot be read
/// is put aside (*.refused), so that it does not keep the others waiting. Thread-safe.
class Inbox : public LocalData {
 public:
  Inbox(std::unique_ptr<ExampleStream> stream, InboxOptions options,
        std::function<void(std::string_view)> on_notice);

  ExampleStream& stream() { return *stream_; }

  Result<std::shared_ptr<const models::DataSet>> examples() override;
  std::uint64_t num_examples() override;
  void update_made(const std::shared_ptr<const models::DataSet>& examples, RunId run,
                   RoundNumber round) override;
  void update_counted(RunId run, RoundNumber round) override;

 private:
  void take_in();

  std::unique_ptr<ExampleStream> stream_;
  InboxOptions options_;
  std::function<void(std::string_view)> on_notice_;
  std::mutex mutex_;  ///< one thread at a time takes tables in
};

}  // namespace covey::client
