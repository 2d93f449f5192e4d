#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include <covey/metrics.hpp>
#include <covey/result.hpp>

namespace covey::simulation {

/// A run's figures as TensorBoard reads them: one scalar per tag and round, the round as the step.
/// One thread.
class EventFile {
 public:
  /// Begins the file anew. `start_s`: when the run began, seconds since 1970: rounds are placed in time
  /// by what they took since then, so that a file written again says the same.
  static Result<EventFile> create(const std::string& path, double start_s);
  /// The file is complete up to and with this round when this returns.
  Result<void> append(const RoundMetrics& metrics);

 private:
  EventFile(std::string path, double start_s);
  Result<void> write(std::string_view event);

  std::string path_;
  double start_s_;
  std::optional<double> first_started_s_;  ///< of the first round, by the clock of the metrics
  std::ofstream file_;
};

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
std::uint32_t crc32c(std::string_view bytes);

/// One record of a TFRecord file: length, masked CRC of the length, data, masked CRC of the data
/// (little-endian; tensorflow/core/lib/io/record_writer.h).
std::string tfrecord(std::string_view data);

}  // namespace covey::simulation
