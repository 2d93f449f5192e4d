#include "client/daemon/background_priority.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

using namespace covey::client;

namespace {

struct Priority {
  int nice = 0;
  int scheduling = 0;
  long disk_class = 0;
};

Priority priority_of_this_thread() {
  constexpr int kClassShift = 13;  // linux/ioprio.h
  return {.nice = ::getpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid))),
          .scheduling = ::sched_getscheduler(0),
          .disk_class = ::syscall(SYS_ioprio_get, 1, 0) >> kClassShift};
}

Priority after(const BackgroundPriority& wanted) {
  Priority found;
  std::thread([&] {
    CHECK(set_background_priority(wanted).ok());
    found = priority_of_this_thread();
  }).join();
  return found;
}

}  // namespace

TEST_CASE("a training thread stands back, the others do not", "[priority]") {
  const Priority before = priority_of_this_thread();
  const Priority training = after({.nice = 19});
  CHECK(training.nice == 19);
  CHECK(training.scheduling == SCHED_BATCH);
  CHECK(training.disk_class == 3);  // idle
  const Priority now = priority_of_this_thread();
  CHECK(now.nice == before.nice);
  CHECK(now.scheduling == before.scheduling);
  CHECK(now.disk_class == before.disk_class);
}

TEST_CASE("only idle processors and no change on disks can be asked for", "[priority]") {
  const Priority before = priority_of_this_thread();
  const Priority training =
      after({.nice = 19, .disk = DiskPriority::kNone, .only_when_idle = true});
  CHECK(training.scheduling == SCHED_IDLE);
  CHECK(training.disk_class == before.disk_class);
  CHECK(after({.disk = DiskPriority::kBestEffort}).disk_class == 2);
}

TEST_CASE("a thread that stands back further already stays there", "[priority]") {
  std::thread([] {
    REQUIRE(::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), 19) == 0);
    CHECK(set_background_priority({.nice = 5}).ok());
    CHECK(priority_of_this_thread().nice == 19);
  }).join();
}
