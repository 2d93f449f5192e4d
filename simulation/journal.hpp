#pragma once

#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/metrics.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/result.hpp>
#include <covey/server/round_coordinator.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "durable_file.hpp"

/// What a simulated run writes down so that it can go on after it was killed. Everything that
/// happens in virtual time follows from the run file and from what computing answered: how
/// trainings ended, whether updates were taken, what models scored. `journal.bin` holds these
/// answers in their order; `snapshot.bin` the model, and what else cannot be had again from
/// answers, at one committed round.
namespace covey::simulation {

// ---- records

/// A training ended.
struct TrainedRecord {
  std::uint64_t training = 0;  ///< its number in the run
  ClientId client{};
  RoundNumber round{};
  std::optional<std::string> failure;  ///< why there is no update; then nothing below counts
  std::uint64_t update_bytes = 0;
  double weight = 0;
  std::vector<double> scalars;
  std::uint64_t num_examples = 0;
  std::uint32_t steps = 0;
  double train_loss = 0;
  std::uint64_t clipped_coordinates = 0;
  std::optional<privacy::PackedFormat> packed;
  bool has_residual = false;  ///< error feedback: what it is, the snapshot says where that matters
  bool operator==(const TrainedRecord&) const = default;
};
/// The server took an update, or why not.
struct JudgedRecord {
  ClientId client{};
  RoundNumber round{};
  std::optional<std::pair<RejectReason, std::string>> rejection;
  bool operator==(const JudgedRecord&) const = default;
};
/// The strategy moved the model, or why not. The models themselves are not here.
struct AppliedRecord {
  RoundNumber round{};
  std::optional<std::string> failure;
  std::uint64_t parameter_bytes = 0;
  struct Sent {
    std::uint64_t bytes = 0;
    Digest digest;
    bool operator==(const Sent&) const = default;
  };
  std::vector<Sent> sent;  ///< the model as devices get it: the run's plan, then the classes' own
  std::optional<server::PrivacyStatus> privacy;
  std::optional<server::SecureSumFigures> figures;
  std::optional<ClientId> culprit;
};
struct EvaluatedRecord {
  RoundNumber round{};
  double accuracy = 0;
  double loss = 0;
  bool operator==(const EvaluatedRecord&) const = default;
};
/// A round's metrics were published; of them what virtual time does not say.
struct PublishedRecord {
  RoundNumber round{};
  double wall_s = 0;
  std::optional<FairnessFigures> devices;
};
using Record =
    std::variant<TrainedRecord, JudgedRecord, AppliedRecord, EvaluatedRecord, PublishedRecord>;

/// "the update of device 7 in round 3": what a record is about, for sentences.
std::string describe(const Record& record);

void encode(const Record& record, ByteWriter& out);
/// Nothing where the bytes are no record; `in` then stands anywhere.
std::optional<Record> decode_record(ByteReader& in);

// ---- the journal

/// Where a journal stands: so many bytes of it, and the digest of all of them chained block by
/// block.
struct JournalPosition {
  std::uint64_t length = 0;
  Digest chain;
  bool operator==(const JournalPosition&) const = default;
};

/// Appends records to a file in blocks, each flushed to the disk. One thread at a time.
class JournalWriter {
 public:
  /// A new file, over whatever was there. `run` names the run that it is of.
  static Result<JournalWriter> create(const std::string& path, const Digest& run);
  /// Goes on at `position` of an existing file; what is behind it is cut off.
  static Result<JournalWriter> reopen(const std::string& path, const JournalPosition& position);

  void add(const Record& record) { encode(record, pending_); }
  /// Writes what was added as one block; durable when it returns.
  Result<JournalPosition> flush();

 private:
  JournalWriter(std::string path, FileHandle file, JournalPosition position)
      : path_(std::move(path)), file_(std::move(file)), position_(position) {}

  std::string path_;
  FileHandle file_;
  JournalPosition position_;
  ByteWriter pending_;
};

/// The records of a journal up to a position. O(journal) memory, a few dozen bytes a record.
class JournalReader {
 public:
  /// Error naming the file: it is missing, of another run, shorter than `position`, or not what was
  /// written.
  static Result<JournalReader> open(const std::string& path, const Digest& run,
                                    const JournalPosition& position);

  /// The next record; nothing behind the last. Error where the bytes are no record.
  Result<std::optional<Record>> next();
  bool at_end() const { return block_ == blocks_.size(); }

 private:
  std::string path_;
  std::vector<std::byte> bytes_;
  std::vector<std::pair<std::size_t, std::size_t>> blocks_;  ///< where each begins and ends
  std::size_t block_ = 0;
  std::size_t at_ = 0;
};

// ---- the snapshot

/// A run at a committed round.
struct Snapshot {
  struct Parameters {
    RoundNumber round{};  ///< after which the model was this
    SharedBytes bytes;    ///< fp32, R^d
  };
  Digest run;
  RoundNumber round{};
  JournalPosition journal;
  std::vector<float> state;       ///< UpdatePipeline::state()
  std::uint64_t noise_bytes = 0;  ///< that the server's noise took from its stream so far
  double wall_s = 0;
  std::vector<std::uint64_t>
      trainings;  ///< whose updates are still to come: computed again, ascending
  std::vector<Parameters>
      parameters;  ///< that are still asked for, by round; the last is this round's
  /// What error feedback of a training left to its device, where somebody still holds it.
  struct Residual {
    std::uint64_t training = 0;
    SharedBytes bytes;  ///< fp32
  };
  std::vector<Residual> residuals;  ///< by training
  /// As devices got them and may still train on them. May share bytes with `parameters`.
  std::vector<SharedBytes> models;
};

/// Beside it and then renamed, so that a crash leaves the old one or the new one.
Result<void> write_snapshot(const std::string& path, const Snapshot& snapshot);
/// Nothing where there is no such file. Error naming the file where its content is not what was
/// written.
Result<std::optional<Snapshot>> read_snapshot(const std::string& path);

}  // namespace covey::simulation
