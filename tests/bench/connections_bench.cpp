// What a connection costs: memory of the server per idle TLS connection, handshakes per second with
// both ends on this machine, bytes per second. The clients are a process of their own.

#include <benchmark/benchmark.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <covey/transport/certificates.hpp>
#include <covey/transport/connection.hpp>
#include <covey/transport/event_loop.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using namespace covey;
using namespace covey::transport;

template <typename T>
T need(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "connections_bench: %s\n", result.error().message.c_str());
    std::_Exit(1);
  }
  return std::move(result).value();
}

std::string write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
  return path.string();
}

TlsFiles files_of(const std::filesystem::path& directory, const KeyAndCertificate& authority,
                  const Subject& subject) {
  const KeyAndCertificate made = need(issue(authority, subject));
  return {write(directory / "ca.pem", authority.certificate_pem),
          write(directory / (subject.common_name + ".pem"), made.certificate_pem),
          write(directory / (subject.common_name + ".key"), made.key_pem), ""};
}

/// Resident set of this process in KiB.
double resident_kib() {
  std::ifstream statm("/proc/self/statm");
  double total = 0;
  double resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1024;
}

/// Opens `count` connections, sixteen at a time; with the last one up it sends `frames` large
/// frames over it, and ends when the server closes.
int run_client(const std::string& address, const TlsFiles& files, std::size_t count,
               std::size_t frames) {
  EventLoop loop;
  Dialer::Options options;
  options.address = address;
  options.tls = files;
  const auto dialer = need(Dialer::make(loop, options));
  std::vector<std::shared_ptr<Connection>> open;
  std::size_t started = 0;
  const SharedBytes payload(std::vector<std::byte>(256 * 1024));
  std::function<void()> connect_next = [&] {
    if (started == count) return;
    ++started;
    ConnectionHandlers handlers;
    handlers.on_open = [&](std::shared_ptr<Connection> connection) {
      open.push_back(std::move(connection));
      connect_next();
      if (open.size() < count) return;
      for (std::size_t i = 0; i < frames; ++i) {
        open.back()->send({std::vector<std::byte>(16), payload});
      }
    };
    handlers.on_closed = [&](const Error&) { loop.stop(); };
    dialer->connect(std::move(handlers));
  };
  for (int i = 0; i < 16; ++i) connect_next();
  loop.run();
  return 0;
}

struct Measurement {
  double kib_per_connection = 0;
  double handshakes_per_second = 0;
  double mib_per_second = 0;
};

Measurement serve(EventLoop& loop, std::size_t count, std::size_t frames,
                  const std::function<void(std::uint16_t)>& on_listening, const TlsFiles& files) {
  Measurement result;
  std::size_t open = 0;
  std::size_t received = 0;
  double before_kib = 0;
  Time first{};
  Time complete{};
  Listener::Options options;
  options.address = "127.0.0.1:0";
  options.tls = files;
  options.max_connections = 1U << 20;
  const auto listener = need(Listener::make(loop, options, [&] {
    ConnectionHandlers handlers;
    handlers.on_open = [&](std::shared_ptr<Connection>) {
      // The first connections pay for what is shared and lazily loaded.
      if (++open == 16) {
        before_kib = resident_kib();
        first = loop.now();
      }
      if (open < count) return;
      complete = loop.now();
      const auto counted = static_cast<double>(count - 16);
      result.handshakes_per_second = counted / seconds(complete - first);
      result.kib_per_connection = (resident_kib() - before_kib) / counted;
    };
    handlers.on_frame = [&](std::span<const std::byte>, SharedBytes payload) {
      if (++received < frames) return;
      const double bytes = static_cast<double>(frames) * static_cast<double>(payload.size());
      result.mib_per_second = bytes / (1 << 20) / seconds(loop.now() - complete);
      loop.stop();
    };
    return handlers;
  }));
  on_listening(listener->port());
  loop.run();
  return result;
}

struct Kit {
  std::filesystem::path directory;
  TlsFiles server;
  TlsFiles device;
};

Kit make_kit() {
  std::string name = (std::filesystem::temp_directory_path() / "covey-bench-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) std::abort();
  const KeyAndCertificate authority = need(make_authority("bench authority", 30));
  Subject server;
  server.kind = PeerIdentity::Kind::kServer;
  server.common_name = "server";
  server.host_names = {"127.0.0.1"};
  Subject device;
  device.common_name = "device";
  device.client = ClientId{1};
  return {name, files_of(name, authority, server), files_of(name, authority, device)};
}

/// range(0): connections, at least 32.
void connections(benchmark::State& state) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const Kit kit = make_kit();
  const auto count = static_cast<std::size_t>(state.range(0));
  constexpr std::size_t kFrames = 30;  // 7.5 MiB: below the client's queue limit
  Measurement measured;
  for ([[maybe_unused]] auto iteration : state) {
    pid_t child = -1;
    {
      EventLoop loop;
      measured = serve(
          loop, count, kFrames,
          [&](std::uint16_t port) {
            child = ::fork();
            if (child == 0) {
              std::_Exit(
                  run_client("127.0.0.1:" + std::to_string(port), kit.device, count, kFrames));
            }
          },
          kit.server);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
  }
  std::filesystem::remove_all(kit.directory);
  state.counters["KiB_per_idle_connection"] = measured.kib_per_connection;
  state.counters["handshakes_per_s"] = measured.handshakes_per_second;
  state.counters["MiB_per_s"] = measured.mib_per_second;
}
BENCHMARK(connections)
    ->Arg(1000)
    ->Arg(5000)
    ->Iterations(1)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
