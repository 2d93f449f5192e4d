#include "leading_rank.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "host_name.hpp"

namespace covey::simulation {
namespace {

// How long a rank that is there takes at most to answer when the run ends: it looks every few
// milliseconds, and whoever stopped the run may kill it within a second.
constexpr std::chrono::milliseconds kLastAnswer{300};
constexpr std::chrono::milliseconds kTick{5};

bool process_is_gone(const RankHello& hello) {
  if (hello.process == 0 || hello.host != host_name()) return false;
  return ::kill(static_cast<pid_t>(hello.process), 0) != 0 && errno == ESRCH;
}

constexpr char kProcessGone[] = "its process has ended";

}  // namespace

LeadingRank::LeadingRank(RankTransport& transport, Options options)
    : transport_(transport), options_(std::move(options)) {
  for (std::uint32_t rank = 1; rank < transport.size(); ++rank) {
    ranks_.push_back(std::make_unique<RemoteRank>(
        transport, rank, [this] { return ending_.load() || stopped(); }, options_.on_lost));
  }
}

LeadingRank::~LeadingRank() { end(); }

Result<void> LeadingRank::await_hello(RemoteRank& rank) {
  for (const LookInterval interval;; interval.sleep()) {
    if (stopped()) return failed(rank.name() + " was not ready when the run was stopped");
    COVEY_ASSIGN(const auto received, rank.receive(kControlChannel));
    if (!received) continue;
    COVEY_ASSIGN(auto message, decode_control(*received));
    auto* hello = std::get_if<RankHello>(&message);
    if (hello == nullptr) return failed(rank.name() + " said something else than that it is ready");
    rank.set_hello(std::move(*hello));
    return {};
  }
}

Result<void> LeadingRank::check(const RemoteRank& rank, const Digest& experiment,
                                const std::string& kernels) const {
  const RankHello& hello = rank.hello();
  if (!hello.problem.empty()) return failed(rank.name() + ": " + hello.problem);
  if (hello.experiment != experiment) {
    return failed(rank.name() + " loaded another experiment than rank 0 (" + host_name() +
                  "): run file, overrides and data must be the same on every machine");
  }
  if (hello.kernels != kernels) {
    return failed(rank.name() + " computes with " + hello.kernels + " kernels, rank 0 (" +
                  host_name() + ") with " + kernels +
                  ", which do not give the same bits: start all ranks with COVEY_ISA set to what "
                  "every machine has, as in mpirun -x COVEY_ISA=avx2");
  }
  return {};
}

Result<void> LeadingRank::gather(const Digest& experiment, const std::string& kernels) {
  for (const auto& rank : ranks_) {
    COVEY_TRY(await_hello(*rank));
    COVEY_TRY(check(*rank, experiment, kernels));
  }
  watch_ = std::thread([this] { watch(); });
  return {};
}

std::vector<std::unique_ptr<TrainingWorker>> LeadingRank::workers() {
  std::vector<std::unique_ptr<TrainingWorker>> all;
  for (const auto& rank : ranks_) {
    for (std::uint32_t i = 0; i <= rank->hello().workers; ++i) {
      all.push_back(std::make_unique<RemoteWorker>(*rank, i));
    }
  }
  return all;
}

std::size_t LeadingRank::drain_pongs(RemoteRank& rank) {
  std::size_t pongs = 0;
  for (;;) {
    const auto received = transport_.receive(rank.rank(), kControlChannel, [] { return false; });
    if (!received.ok() || !received->has_value()) return pongs;
    ++pongs;
  }
}

void LeadingRank::ping_all(std::vector<std::uint32_t>& unanswered) {
  for (std::size_t i = 0; i < ranks_.size(); ++i) {
    RemoteRank& rank = *ranks_[i];
    if (rank.done()) continue;
    if (drain_pongs(rank) > 0) unanswered[i] = 0;
    if (process_is_gone(rank.hello())) {
      rank.lose(kProcessGone);
    } else if (unanswered[i] >= options_.unanswered_pings) {
      rank.lose("it did not answer " + std::to_string(unanswered[i]) + " times in a row");
    } else if (rank.send(kControlChannel, encode(RankPing{})).ok()) {
      ++unanswered[i];
    }
  }
}

void LeadingRank::watch() {
  std::vector<std::uint32_t> unanswered(ranks_.size(), 0);
  for (std::chrono::milliseconds waited{0}; !ending_; waited += kTick) {
    if (stopped()) break;
    if (waited >= options_.ping_interval) {
      waited = std::chrono::milliseconds{0};
      ping_all(unanswered);
    }
    std::this_thread::sleep_for(kTick);
  }
  if (stopped()) look_for_missing();
}

/// The run was stopped. Was it for a rank that is gone?
void LeadingRank::look_for_missing() {
  const auto until = std::chrono::steady_clock::now() + kLastAnswer;
  const auto too_late = [&] { return std::chrono::steady_clock::now() > until; };
  std::vector<RemoteRank*> silent;
  for (const auto& rank : ranks_) {
    if (rank->lost()) continue;
    drain_pongs(*rank);  // of earlier pings
    tell(*rank, RankPing{}, too_late);
    silent.push_back(rank.get());
  }
  while (!silent.empty() && !too_late()) {
    std::erase_if(silent, [this](RemoteRank* rank) {
      if (process_is_gone(rank->hello())) rank->lose(kProcessGone);
      return rank->lost() || drain_pongs(*rank) > 0;
    });
    std::this_thread::sleep_for(kTick);
  }
  for (RemoteRank* rank : silent) rank->lose("it does not answer");
}

/// What cannot be sent is not missed: its receiver is.
void LeadingRank::tell(const RemoteRank& rank, const ControlMessage& message,
                       const std::function<bool()>& give_up) {
  static_cast<void>(transport_.send(rank.rank(), kControlChannel, encode(message), give_up));
}

void LeadingRank::end() {
  if (std::exchange(ended_, true)) return;
  ending_ = true;
  if (watch_.joinable()) watch_.join();
  const bool all_there =
      std::ranges::none_of(ranks_, [](const auto& rank) { return rank->lost(); });
  const bool orderly = all_there && !stopped();
  const auto until = std::chrono::steady_clock::now() + kLastAnswer;
  for (const auto& rank : ranks_) {
    if (rank->lost()) continue;
    tell(*rank, RankGoodbye{orderly},
         [&] { return !orderly && std::chrono::steady_clock::now() > until; });
  }
  transport_.end(orderly);
}

}  // namespace covey::simulation
