// A device's disk, on which anything may have happened to any file: it opens, and what it gives
// back can be saved and is given back again.

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/client/participant.hpp>

#include "device_disk.hpp"

namespace {

using namespace covey;
using namespace covey::client;
using namespace covey::fuzz;
using namespace std::chrono_literals;
using client::testing::MemoryDisk;

Moment at(std::chrono::seconds later) {
  return {Time{} + later, std::chrono::system_clock::time_point(1'700'000'000s) + later};
}

/// A model, a download behind its middle, an update that waits, residuals.
std::shared_ptr<MemoryDisk> written_disk(bool trained) {
  auto disk = std::make_shared<MemoryDisk>();
  const auto spool = open_spool(*disk);
  static_cast<void>(spool->load(at(0s)));
  const SharedBytes model = pattern(2440, 1);
  SavedWork work;
  work.memory.residual = pattern(2440, 2);
  work.memory.residual_run = RunId{7};
  work.memory.earlier =
      std::make_shared<const EarlierResidual>(EarlierResidual{RoundNumber{3}, pattern(2440, 3)});
  work.last_accepted = RoundOfRun{RunId{7}, RoundNumber{3}};
  work.not_before = Time{} + 60s;
  SavedTask& task = work.task.emplace();
  task.assignment = small_assignment(model, 4);
  task.report_by = Time{} + 500s;
  if (trained) {
    work.model = SavedModel{model.digest(), model};
    TrainedUpdate& update = task.trained.emplace();
    update.update = pattern(1500, 4);
    update.digest = update.update.digest();
    update.scalars = {0.5, 1.5};
    update.residual = pattern(2440, 5);
    task.reported = true;
  } else {
    work.download = SavedDownload{model.digest(), model.size(), {}};
    for (std::uint64_t offset = 0; offset < 1024; offset += 256) {
      spool->append({model.digest(), model.size(), offset, model.slice(offset, 256)}, Time{});
    }
  }
  spool->save(work, at(1s));
  return disk;
}

void damage(MemoryDisk& disk, Choices& choices) {
  if (disk.files.empty()) return;
  auto file = disk.files.begin();
  std::advance(file, choices.byte() % disk.files.size());
  MemoryDisk::Bytes& bytes = file->second;
  switch (choices.byte() % 6) {
    case 0:
      disk.files.erase(file);
      return;
    case 1:
      bytes.resize(std::min<std::uint64_t>(choices.number(), bytes.size()));
      return;
    case 2: {
      const auto more = choices.take(choices.byte());
      bytes.insert(bytes.end(), more.begin(), more.end());
      return;
    }
    case 3:
      bytes = choices.take(choices.number() % 4096);
      return;
    case 4: {
      auto next = disk.files.begin();
      std::advance(next, choices.byte() % disk.files.size());
      std::swap(bytes, next->second);
      return;
    }
    default:
      for (std::byte changed : choices.take(1 + choices.byte() % 8)) {
        if (bytes.empty()) return;
        bytes[(choices.byte() | choices.byte() << 8u) % bytes.size()] ^= changed;
      }
  }
}

/// The record's checksum made right again, so that what reads it is reached.
void reseal(MemoryDisk& disk) {
  const auto state = disk.files.find("state");
  if (state == disk.files.end() || state->second.size() < 32) return;
  MemoryDisk::Bytes& bytes = state->second;
  const Digest digest = sha256(std::span(bytes).first(bytes.size() - 32));
  std::ranges::copy(std::as_bytes(std::span(digest.bytes)), bytes.end() - 32);
}

/// What is accepted is written as it can be read.
void check_record(const MemoryDisk& disk) {
  const auto state = disk.files.find("state");
  if (state == disk.files.end()) return;
  const auto record = parse_state(state->second);
  if (!record) return;
  const auto again = parse_state(serialise(*record));
  COVEY_ASSERT(again.ok());
}

void check_disk(const std::shared_ptr<MemoryDisk>& disk) {
  const auto spool = open_spool(*disk);
  SavedWork work = spool->load(at(10s));
  const bool had_task = work.task.has_value(), had_model = work.model.has_value();
  const bool trained = had_task && work.task->trained.has_value();
  if (trained) COVEY_ASSERT(!work.task->trained->update.empty());
  if (had_model) COVEY_ASSERT(work.model->bytes.digest() == work.model->digest);
  if (work.download) COVEY_ASSERT(work.download->held.size() <= work.download->size);

  ParticipantOptions options;
  options.client = ClientId{3};
  options.conditions.num_examples = 12;
  options.saves_work = true;
  options.max_model_bytes = 1 << 20;
  options.saved = work;
  Participant device(std::move(options));
  Actions actions;
  device.start(Time{} + 10s, actions);
  device.handle(Time{} + 11s, Connected{}, actions);
  device.handle(Time{} + 12s, Received{Welcome{1, 1024, 10s}}, actions);
  device.handle(Time{} + 13s, ConnectionLost{"cut"}, actions);
  COVEY_ASSERT(!device.finished());

  spool->save(device.saved_work(), at(14s));
  const SavedWork again = open_spool(*disk)->load(at(15s));
  COVEY_ASSERT(again.task.has_value() == had_task);
  COVEY_ASSERT(again.model.has_value() == had_model);
  if (trained)
    COVEY_ASSERT(again.task->trained->update.digest() == work.task->trained->update.digest());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Choices choices({data, size});
  const auto disk = written_disk(choices.byte() % 2 == 0);
  for (int damages = choices.byte() % 8; damages > 0; --damages) damage(*disk, choices);
  if (choices.byte() % 2 == 0) reseal(*disk);
  check_record(*disk);
  check_disk(disk);
  return 0;
}
