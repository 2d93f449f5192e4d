#include "remote_rank.hpp"

#include <algorithm>
#include <utility>

namespace covey::simulation {
namespace {

// Models a rank keeps that no job uses: the last rounds', to which late devices may come back.
constexpr std::size_t kUnusedModels = 2;

}  // namespace

ModelReference ModelsOfRank::begin(const Digest& model) {
  const std::lock_guard lock(mutex_);
  ModelReference reference;
  Held& held = held_[model];
  if (held.serial == 0) {
    held.serial = ++serials_;
    reference.included = true;
  }
  ++held.jobs;
  held.last_used = ++clock_;
  reference.serial = held.serial;
  drop_old(reference);
  return reference;
}

void ModelsOfRank::end(std::uint64_t serial) {
  const std::lock_guard lock(mutex_);
  for (auto& [digest, held] : held_) {
    if (held.serial == serial) --held.jobs;
  }
}

void ModelsOfRank::drop_old(ModelReference& reference) {
  for (;;) {
    auto oldest = held_.end();
    std::size_t unused = 0;
    for (auto at = held_.begin(); at != held_.end(); ++at) {
      if (at->second.jobs > 0) continue;
      ++unused;
      if (oldest == held_.end() || at->second.last_used < oldest->second.last_used) oldest = at;
    }
    if (unused <= kUnusedModels) return;
    reference.dropped.push_back(oldest->second.serial);
    held_.erase(oldest);
  }
}

RemoteRank::RemoteRank(RankTransport& transport, std::uint32_t rank, std::function<bool()> give_up,
                       std::function<void(const std::string&)> on_lost)
    : transport_(transport),
      rank_(rank),
      give_up_(std::move(give_up)),
      on_lost_(std::move(on_lost)) {}

std::string RemoteRank::name() const {
  return "rank " + std::to_string(rank_) + (hello_.host.empty() ? "" : " (" + hello_.host + ")");
}

Error RemoteRank::lose(const std::string& reason) {
  Error error = failed(name() + " is gone: " + reason);
  if (!lost_.exchange(true, std::memory_order_acq_rel)) on_lost_(error.message);
  return error;
}

Result<void> RemoteRank::send(int channel, std::vector<std::byte> message) {
  if (done()) return failed(name() + " is not in use any more");
  auto sent = transport_.send(rank_, channel, std::move(message), [this] { return done(); });
  if (!sent.ok() && !done()) return lose(sent.error().message);
  return sent;
}

Result<std::optional<std::vector<std::byte>>> RemoteRank::receive(int channel) {
  if (done()) return failed(name() + " is not in use any more");
  auto received = transport_.receive(rank_, channel, [this] { return done(); });
  if (!received.ok() && !done()) return lose(received.error().message);
  return received;
}

TrainingWorker::Outcome RemoteWorker::compute(const TrainingJob& job,
                                              const std::atomic<bool>& cancelled) {
  const ModelReference model = rank_.models().begin(job.task.model.digest());
  ++jobs_;
  const auto sent = rank_.send(channel_of_worker(worker_), encode_job(jobs_, job, model));
  Outcome outcome = sent.ok() ? await(cancelled) : std::nullopt;
  rank_.models().end(model.serial);
  return outcome;
}

/// The answer also to a job that was cancelled: the worker is free when it comes.
TrainingWorker::Outcome RemoteWorker::await(const std::atomic<bool>& cancelled) {
  const LookInterval interval;
  for (bool told = false; !rank_.done(); interval.sleep()) {
    if (auto message = look()) return std::move(message->outcome);
    if (!told && cancelled.load(std::memory_order_relaxed)) {
      told = true;
      if (!rank_.send(kControlChannel, encode(CancelJob{worker_, jobs_})).ok()) break;
    }
  }
  return std::nullopt;
}

std::optional<OutcomeMessage> RemoteWorker::look() {
  auto received = rank_.receive(channel_of_worker(worker_));
  if (!received.ok() || !received->has_value()) return std::nullopt;
  auto message = decode_outcome(std::move(**received));
  if (message.ok() && message->number == jobs_) {
    // The server asks for the hash of these bytes: remembered now, it costs the simulation nothing.
    if (message->outcome && message->outcome->ok()) (*message->outcome)->update.digest();
    return std::move(*message);
  }
  rank_.lose(message.ok() ? "it answered a job that it was not given" : message.error().message);
  return std::nullopt;
}

}  // namespace covey::simulation
