#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/random.hpp>
#include <covey/server/store.hpp>
#include <csignal>
#include <fstream>

#include "server_test_support.hpp"

using namespace covey;
using namespace covey::server;
using covey::server::test::in_child;
using covey::server::test::TemporaryDirectory;

namespace {

constexpr std::size_t kParameters = 12'000;  // 48 kB: a dozen pages of the database per commit
constexpr std::uint64_t kSeed = 99;

/// The model of a round, so that a reader can tell a whole one from a torn one.
SharedBytes model_of(std::uint32_t round) {
  RandomStream random(kSeed, RandomPurpose::kFault, RoundNumber{round});
  std::vector<float> values(kParameters);
  for (float& value : values) value = static_cast<float>(random.uniform(-1, 1));
  return encode_fp32(values);
}

std::vector<float> state_of(std::uint32_t round) {
  return std::vector<float>(100, static_cast<float>(round));
}

Result<void> commit(Store& store, std::uint32_t round, std::uint32_t keep_snapshots) {
  RoundMetrics metrics;
  metrics.round = RoundNumber{round};
  metrics.examples = round * 7;
  return store.commit_round(metrics, model_of(round), state_of(round), keep_snapshots);
}

Result<void> begin(Store& store) {
  return store.begin_run({RunId{1}, "", RoundNumber{0}, model_of(0), state_of(0)});
}

/// Empty if the store holds exactly the rounds 1..n whole, where n is at least `at_least`.
std::string check_rounds(Store& store, std::uint32_t at_least, std::uint32_t& round) {
  const auto run = store.load_run();
  if (!run.ok()) return run.error().message;
  if (!run->has_value()) return "the run is gone";
  round = value_of((*run)->round);
  if (round < at_least) {
    return "round " + std::to_string(at_least) + " was durable, the store is at " +
           std::to_string(round);
  }
  if (!std::ranges::equal((*run)->model.span(), model_of(round).span()))
    return "another round's model";
  if ((*run)->strategy_state != state_of(round)) return "another round's strategy state";
  const auto metrics = store.load_metrics();
  if (!metrics.ok()) return metrics.error().message;
  if (metrics->size() != round) return "not one row of metrics per round";
  for (std::uint32_t i = 0; i < round; ++i) {
    const RoundMetrics& row = (*metrics)[i];
    if (value_of(row.round) != i + 1 || row.examples != (i + 1) * 7) return "torn metrics";
  }
  return "";
}

/// Commits rounds until killed; writes each round's number to `report` once it is durable.
[[noreturn]] void commit_forever(const std::string& path, int report) {
  auto store = Store::open(path);
  if (!store.ok()) ::_exit(2);
  const auto run = store->load_run();
  if (!run.ok() || !run->has_value()) ::_exit(3);
  for (std::uint32_t round = value_of((*run)->round) + 1;; ++round) {
    if (!commit(*store, round, 2).ok()) ::_exit(4);
    if (::write(report, &round, sizeof round) != sizeof round) ::_exit(5);
  }
}

/// Kills the child `delay` after its start, or after its first durable round, and returns the last
/// round it reported durable, 0 if none.
std::uint32_t kill_while_committing(const std::string& path, std::chrono::microseconds delay,
                                    bool after_first_round) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    commit_forever(path, ends[1]);
  }
  ::close(ends[1]);
  pollfd report{.fd = ends[0], .events = POLLIN, .revents = 0};
  if (after_first_round) CHECK(::poll(&report, 1, 30'000) == 1);
  ::usleep(static_cast<useconds_t>(delay.count()));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));  // it was committing until then
  std::uint32_t last = 0;
  for (std::uint32_t round = 0; ::read(ends[0], &round, sizeof round) == sizeof round;)
    last = round;
  ::close(ends[0]);
  return last;
}

/// Commits until the disk refuses, makes room, and goes on. Empty if nothing was lost on the way.
std::string fill_and_free(const std::string& path, const std::function<void()>& make_full,
                          const std::function<void()>& make_room) {
  auto opened = Store::open(path);
  if (!opened.ok()) return opened.error().message;
  Store store = std::move(opened).value();
  if (auto begun = begin(store); !begun.ok()) return begun.error().message;
  make_full();
  std::uint32_t round = 0;
  Result<void> committed;
  while (round < 500 && (committed = commit(store, round + 1, 1000)).ok()) ++round;
  if (committed.ok()) return "500 rounds fitted on a small disk";
  if (committed.error().message.find(path) == std::string::npos) return committed.error().message;
  std::uint32_t stored = 0;
  if (auto problem = check_rounds(store, round, stored); !problem.empty())
    return "full: " + problem;
  if (stored != round) return "a round that failed is stored";
  make_room();
  if (committed = commit(store, round + 1, 1000); !committed.ok()) return committed.error().message;
  return check_rounds(store, round + 1, stored);
}

}  // namespace

TEST_CASE("rounds that were durable survive being killed at any moment") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("store.db");
  {
    auto store = Store::open(path);
    REQUIRE(store.ok());
    REQUIRE(begin(*store).ok());
  }
  INFO("seed " << kSeed);
  RandomStream random(kSeed, RandomPurpose::kFault);
  std::uint32_t durable = 0;
  for (int kill = 0; kill < 20; ++kill) {
    const std::chrono::microseconds delay(random.below(90'000));
    INFO("kill " << kill << " after " << delay.count() << " microseconds");
    const std::uint32_t reported = kill_while_committing(path, delay, kill % 2 == 1);
    durable = std::max(durable, reported);
    auto store = Store::open(path);
    REQUIRE(store.ok());
    CHECK(check_rounds(*store, durable, durable) == "");
  }
  CHECK(durable >= 10);  // every second child committed before it died
}

TEST_CASE("a file that may not grow fails one commit and is used again once it may") {
  const TemporaryDirectory directory;
  const std::string outcome = in_child([&]() -> std::string {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    const rlimit small{.rlim_cur = 1 << 20, .rlim_max = unlimited.rlim_max};
    return fill_and_free(
        directory.file("store.db"), [&] { ::setrlimit(RLIMIT_FSIZE, &small); },
        [&] { ::setrlimit(RLIMIT_FSIZE, &unlimited); });
  });
  CHECK(outcome == "");
}

TEST_CASE("a full disk fails one commit and the store is used again once there is space") {
  const TemporaryDirectory directory;
  const std::string not_allowed = "cannot mount";
  const std::string outcome = in_child([&]() -> std::string {
    const std::string disk = directory.file("");
    if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
      return not_allowed;
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return not_allowed;
    if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=3m") != 0) return not_allowed;
    const std::string ballast = directory.file("ballast");
    const auto make_full = [&] { std::ofstream(ballast) << std::string(1 << 20, 'b'); };
    const auto make_room = [&] { std::filesystem::remove(ballast); };
    return fill_and_free(directory.file("store.db"), make_full, make_room);
  });
  if (outcome == not_allowed) {
    WARN("skipped: mounting a small disk is not allowed here");
    return;
  }
  CHECK(outcome == "");
}
