// covey-client: one device of a federated run, as a program or a service.

#include <fmt/format.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <covey/client/local_data_spec.hpp>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <span>

#include "client/daemon/covey_client/json_line.hpp"
#include "client/daemon/covey_client/options.hpp"
#include "client/daemon/covey_client/program.hpp"
#include "client/daemon/covey_client/self_test.hpp"
#include "client/daemon/covey_client/service.hpp"
#include "client/daemon/linux_conditions.hpp"

namespace covey::client {
namespace {

constexpr int kExitDone = 0, kExitFailed = 1, kExitWrongUsage = 2;

double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // which Linux counts in KiB
}

/// Of models and updates: what crossed the network, and what of it had crossed it before.
std::string transfers_json(const TransferCount& transfers) {
  const auto members = [](std::string_view direction, const TransferCount::Direction& count) {
    return fmt::format("\"{0}_bytes\":{1},\"{0}_bytes_below_resume\":{2},\"{0}s_resumed\":{3}",
                       direction, count.bytes, count.bytes_below_resume, count.transfers_resumed);
  };
  return fmt::format(
      "{},{},\"upload_bytes_lost_by_server\":{}", members("download", transfers.download()),
      members("upload", transfers.upload()), transfers.upload_bytes_lost_by_server());
}

int report(const Error& error, bool json) {
  fmt::print(stderr, "covey-client: {}\n", error.message);
  if (json) fmt::print("{{\"error\":{}}}\n", json_string(error.message));
  const bool usage =
      error.code == ErrorCode::kInvalidArgument || error.code == ErrorCode::kNotFound;
  return usage ? kExitWrongUsage : kExitFailed;
}

int conclude(const Outcome& outcome, bool json) {
  const bool ok = outcome.finished && outcome.finished->ok;
  const std::string reason = outcome.finished ? outcome.finished->reason : "it never began";
  if (json) {
    fmt::print(
        "{{\"finished_ok\":{},\"reason\":{},\"updates_accepted\":{},\"bytes_sent\":{},"
        "\"bytes_received\":{},{},\"wall_s\":{:.3f},\"peak_rss_mib\":{:.1f}}}\n",
        ok, json_string(reason), outcome.rounds_accepted, outcome.bytes_sent,
        outcome.bytes_received, transfers_json(outcome.transfers), outcome.wall_s, peak_rss_mib());
  }
  return ok ? kExitDone : kExitFailed;
}

/// Memory goes back to the system when training lets go of it: one arena, and large blocks as
/// mappings of their own whatever was freed before (mallopt(3): setting the threshold keeps it from
/// growing).
void keep_heap_small() {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 64 * 1024);
  mallopt(M_TRIM_THRESHOLD, 128 * 1024);
}

/// The system holds the process to what its owner allows, should an estimate be wrong: training
/// then ends with an error, and the task is declined. Counted is memory that is written to
/// (RLIMIT_DATA, setrlimit(2)), the whole stack of a thread too, so that is made as small as these
/// threads need it.
void keep_ceiling(std::uint64_t max_memory_bytes) {
  constexpr std::size_t kStackBytes = 1 << 20;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_setattr_default_np(&attributes);
  pthread_attr_destroy(&attributes);
  if (max_memory_bytes == 0) return;
  constexpr std::uint64_t kThreads = 2;  // training, and asking the system's bus
  rlimit limit{};
  getrlimit(RLIMIT_DATA, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, max_memory_bytes + kThreads * kStackBytes);
  setrlimit(RLIMIT_DATA, &limit);
}

Result<Outcome> take_part(const ProgramOptions& options, const Log& log) {
  const ServiceManager manager = ServiceManager::from_environment();
  keep_ceiling(options.device.max_memory_bytes);
  COVEY_ASSIGN(const LocalDataSpec spec, parse_local_data(options.data));
  COVEY_ASSIGN(const auto data, open_local_data(spec, [&log](std::string_view notice) {
                 log(LogLevel::kWarning, notice);
               }));
  LinuxConditions conditions({.state_directory = options.device.state_directory});
  COVEY_ASSIGN(const auto program,
               Program::make({options, *data, manager, log, [&] { return conditions.read(); }}));
  return program->run();
}

int run(std::span<const char* const> arguments) {
  const auto options = read_options(arguments);
  if (!options.ok()) return report(options.error(), false);
  if (options->help || options->version) {
    fmt::print("{}", options->help ? help_text() : "covey-client " COVEY_VERSION "\n");
    return kExitDone;
  }
  keep_heap_small();
  // Nothing here uses what a system's configuration of OpenSSL may say, and reading it takes a
  // while.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  const Log log = make_stderr_log(options->verbose ? LogLevel::kDebug : LogLevel::kInfo);
  if (options->self_test) return self_test(*options) ? kExitDone : kExitFailed;
  const auto outcome = take_part(*options, log);
  return outcome.ok() ? conclude(*outcome, options->json) : report(outcome.error(), options->json);
}

}  // namespace
}  // namespace covey::client

int main(int argc, char** argv) {
  try {
    const std::span<const char* const> arguments(argv, static_cast<std::size_t>(argc));
    return covey::client::run(arguments.subspan(argc > 0 ? 1 : 0));
  } catch (const std::bad_alloc&) {
    std::fputs("covey-client: needs more memory than there is, or than max-memory allows\n",
               stderr);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "covey-client: %s\n", error.what());
  }
  return covey::client::kExitFailed;
}
