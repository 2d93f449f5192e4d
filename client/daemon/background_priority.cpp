#include "client/daemon/background_priority.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

namespace covey::client {
namespace {

// linux/ioprio.h (kernel 5.15 on has it in its headers for programs): class in the upper bits,
// level below.
constexpr int kWhoIsProcess = 1;  // with 0: the calling thread
constexpr int kClassShift = 13;
constexpr int kClassBestEffort = 2, kClassIdle = 3;
constexpr int kLowestLevel = 7;

int disk_priority(DiskPriority priority) {
  return priority == DiskPriority::kIdle ? kClassIdle << kClassShift
                                         : (kClassBestEffort << kClassShift) | kLowestLevel;
}

class Refusals {
 public:
  void note(bool done, std::string_view what) {
    if (done) return;
    if (!text_.empty()) text_ += "; ";
    text_ += fmt::format("the system refuses {}: {}", what, std::strerror(errno));
  }
  Result<void> result() const {
    if (text_.empty()) return {};
    return failed(text_);
  }

 private:
  std::string text_;
};

}  // namespace

Result<void> set_background_priority(const BackgroundPriority& priority) {
  Refusals refusals;
  // On Linux a nice value is a thread's (setpriority(2), "C library/kernel differences").
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  if (::getpriority(PRIO_PROCESS, thread) < priority.nice) {
    refusals.note(::setpriority(PRIO_PROCESS, thread, priority.nice) == 0,
                  fmt::format("nice value {}", priority.nice));
  }
  const sched_param none{};
  refusals.note(
      ::sched_setscheduler(0, priority.only_when_idle ? SCHED_IDLE : SCHED_BATCH, &none) == 0,
      priority.only_when_idle ? "the idle scheduling class" : "the batch scheduling class");
  if (priority.disk != DiskPriority::kNone) {
    refusals.note(::syscall(SYS_ioprio_set, kWhoIsProcess, 0, disk_priority(priority.disk)) == 0,
                  "a lower priority on disks");
  }
  return refusals.result();
}

}  // namespace covey::client
