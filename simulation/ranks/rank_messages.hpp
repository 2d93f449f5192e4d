#pragma once

#include <covey/digest.hpp>
#include <covey/result.hpp>
#include <covey/simulation/training_worker.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

/// What ranks tell each other, and its bytes. Both ends are the same build on one kind of machine.
namespace covey::simulation {

// ---- on the control channel

/// A training rank's first message: it is ready, or why it cannot be.
struct RankHello {
  std::string host;
  std::uint64_t process = 0;  ///< its number on that host
  std::uint32_t workers = 0;
  std::string kernels;  ///< instruction set that its kernels use: other ones give other bits
  Digest experiment;    ///< fingerprint(): it loaded the same
  std::string problem;  ///< not empty: it has none of the above to offer
};
struct RankPong {};
/// Rank 0's: are you there?
struct RankPing {};
/// Rank 0's: this job's result is not wanted any more.
struct CancelJob {
  std::uint32_t worker = 0;
  std::uint64_t job = 0;
};
/// Rank 0's last message.
struct RankGoodbye {
  bool orderly = true;  ///< all ranks are there, and end together
};
using ControlMessage = std::variant<RankHello, RankPong, RankPing, CancelJob, RankGoodbye>;

std::vector<std::byte> encode(const ControlMessage& message);
Result<ControlMessage> decode_control(std::span<const std::byte> bytes);

// ---- on a worker's channel

/// Where a job's model lies in the training rank's store, and what that is told beside.
struct ModelReference {
  std::uint64_t serial = 0;  ///< of its sending, over the life of the rank
  bool included = false;     ///< with this job; otherwise with another that was sent before
  std::vector<std::uint64_t> dropped;  ///< serials that no job uses from now on
};

std::vector<std::byte> encode_job(std::uint64_t number, const TrainingJob& job,
                                  const ModelReference& model);
struct JobMessage {
  std::uint64_t number = 0;
  TrainingJob job;  ///< its model is set where it is included
  ModelReference model;
};
Result<JobMessage> decode_job(std::vector<std::byte> bytes);

/// Nothing: the job was cancelled.
std::vector<std::byte> encode_outcome(std::uint64_t number, const TrainingWorker::Outcome& outcome);
struct OutcomeMessage {
  std::uint64_t number = 0;
  TrainingWorker::Outcome outcome;
};
Result<OutcomeMessage> decode_outcome(std::vector<std::byte> bytes);

}  // namespace covey::simulation
