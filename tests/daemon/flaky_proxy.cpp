#include "flaky_proxy.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <covey/random.hpp>
#include <cerrno>
#include <list>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace covey::testing {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kBuffer = 64 * 1024;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int nonblocking_socket() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::runtime_error("the proxy gets no socket");
  return fd;
}

/// One direction of a connection.
struct Pipe {
  int from = -1, to = -1;
  std::vector<char> held;  ///< read and not yet written
  std::size_t written = 0;
  bool ended = false;      ///< `from` sends no more
  bool shut = false;       ///< and `to` was told so
  double allowance = 0;    ///< bytes that may pass now
  Clock::time_point refilled = Clock::now();

  bool wants_read() const { return !ended && held.size() - written < kBuffer; }
  bool wants_write() const { return written < held.size(); }
};

struct Link {
  Pipe up, down;
  std::uint64_t passed = 0;
  std::uint64_t cut_at = 0;  ///< 0: never
  bool silent = false;
  bool dead = false;
};

}  // namespace

struct FlakyProxy::Loop {
  int listener = -1;
  std::uint16_t target = 0;
  Misfortune misfortune;
  const std::atomic<bool>& calm;
  RandomStream random;
  std::list<Link> links;
  mutable std::mutex mutex;
  ProxyCounts counts;

  Loop(std::uint16_t port, Misfortune what, const std::atomic<bool>& is_calm)
      : target(port), misfortune(what), calm(is_calm), random(what.seed, RandomPurpose::kFault) {
    listener = nonblocking_socket();
    const auto any = loopback(0);
    if (bind(listener, reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
        listen(listener, 64) != 0) {
      throw std::runtime_error("the proxy cannot listen");
    }
  }
  ~Loop() {
    for (Link& link : links) end(link, false);
    close(listener);
  }

  std::uint16_t port() const {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }

  void draw_next_cut(Link& link) {
    const std::uint64_t range = misfortune.cut_after_max - misfortune.cut_after_min;
    link.cut_at = misfortune.cut_after_max == 0
                      ? 0
                      : link.passed + misfortune.cut_after_min + random.below(range + 1);
  }

  void accept_one() {
    const int device = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (device < 0) return;
    const int server = nonblocking_socket();
    const auto address = loopback(target);
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
        errno != EINPROGRESS) {
      close(device);
      close(server);
      return;
    }
    Link& link = links.emplace_back();
    link.up.from = link.down.to = device;
    link.up.to = link.down.from = server;
    draw_next_cut(link);
    const std::lock_guard lock(mutex);
    ++counts.connections;
  }

  /// With a reset, as a router that forgot the connection would, or as if both had hung up.
  void end(Link& link, bool reset) {
    for (const int fd : {link.up.from, link.up.to}) {
      if (reset) {
        const linger at_once{1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      }
      close(fd);
    }
    link.dead = true;
  }

  void meet_misfortune(Link& link, char& byte) {
    const double what = random.uniform();
    const std::lock_guard lock(mutex);
    if (what < misfortune.corrupt_share) {
      byte = static_cast<char>(byte ^ (1 << random.below(8)));
      ++counts.corruptions;
      return draw_next_cut(link);
    }
    if (what < misfortune.corrupt_share + misfortune.stall_share) {
      link.silent = true;
      ++counts.stalls;
      return;
    }
    ++counts.cuts;
    end(link, random.below(2) == 0);
  }

  void read_into(Link& link, Pipe& pipe) {
    std::size_t room = kBuffer - (pipe.held.size() - pipe.written);
    if (misfortune.bytes_per_second > 0) room = std::min(room, static_cast<std::size_t>(pipe.allowance));
    if (room == 0) return;
    const std::size_t before = pipe.held.size();
    pipe.held.resize(before + room);
    const ssize_t got = recv(pipe.from, pipe.held.data() + before, room, 0);
    pipe.held.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got == 0) pipe.ended = true;
    if (got < 0 && errno != EAGAIN && errno != EINTR) return end(link, true);
    if (got <= 0) return;
    pipe.allowance -= static_cast<double>(got);
    link.passed += static_cast<std::uint64_t>(got);
    {
      const std::lock_guard lock(mutex);
      (&pipe == &link.up ? counts.bytes_to_server : counts.bytes_to_devices) +=
          static_cast<std::uint64_t>(got);
    }
    if (link.cut_at > 0 && link.passed >= link.cut_at && !calm) {
      meet_misfortune(link, pipe.held.back());
    }
  }

  void write_from(Link& link, Pipe& pipe) {
    const ssize_t sent =
        send(pipe.to, pipe.held.data() + pipe.written, pipe.held.size() - pipe.written, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) return end(link, true);
    if (sent > 0) pipe.written += static_cast<std::size_t>(sent);
    if (pipe.written == pipe.held.size()) {
      pipe.held.clear();
      pipe.written = 0;
    }
  }

  void refill(Pipe& pipe) const {
    const auto now = Clock::now();
    const std::chrono::duration<double> passed = now - pipe.refilled;
    pipe.refilled = now;
    const auto rate = static_cast<double>(misfortune.bytes_per_second);
    pipe.allowance = std::min(pipe.allowance + rate * passed.count(), rate / 4 + 1);
  }

  void serve(Link& link, short device_events, short server_events) {
    const auto look = [&](Pipe& pipe, short readable, short writable) {
      if (link.dead || link.silent) return;
      refill(pipe);
      if (pipe.wants_write() && (writable & POLLOUT)) write_from(link, pipe);
      if (link.dead) return;
      if (pipe.wants_read() && (readable & (POLLIN | POLLHUP | POLLERR))) read_into(link, pipe);
      if (!link.dead && pipe.ended && !pipe.wants_write() && !pipe.shut) {
        shutdown(pipe.to, SHUT_WR);
        pipe.shut = true;
      }
    };
    look(link.up, device_events, server_events);
    look(link.down, server_events, device_events);
    if (!link.dead && link.up.shut && link.down.shut) end(link, false);
    // A silent connection ends when one of its sides has given it up.
    if (!link.dead && link.silent && ((device_events | server_events) & (POLLHUP | POLLERR))) {
      end(link, false);
    }
  }

  void run(const std::stop_token& stop) {
    std::vector<pollfd> fds;
    while (!stop.stop_requested()) {
      fds.assign(1, {listener, POLLIN, 0});
      const auto events = [](const Pipe& in, const Pipe& out, bool silent) {
        if (silent) return static_cast<short>(POLLRDHUP);
        return static_cast<short>((in.wants_read() ? POLLIN : 0) | (out.wants_write() ? POLLOUT : 0));
      };
      for (const Link& link : links) {
        fds.push_back({link.up.from, events(link.up, link.down, link.silent), 0});
        fds.push_back({link.up.to, events(link.down, link.up, link.silent), 0});
      }
      // Throttled pipes are readable all the time: a pause instead of a spin.
      if (misfortune.bytes_per_second > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      poll(fds.data(), fds.size(), 20);
      std::size_t i = 1;
      for (auto& link : links) {
        const auto as_hang_up = [](short events_seen) {
          return static_cast<short>(events_seen & POLLRDHUP ? events_seen | POLLHUP : events_seen);
        };
        serve(link, as_hang_up(fds[i].revents), as_hang_up(fds[i + 1].revents));
        i += 2;
      }
      links.remove_if([](const Link& link) { return link.dead; });
      if (fds[0].revents & POLLIN) accept_one();
    }
  }
};

FlakyProxy::FlakyProxy(const std::string& target, Misfortune misfortune) {
  const auto port = static_cast<std::uint16_t>(std::stoi(target.substr(target.rfind(':') + 1)));
  loop_ = std::make_unique<Loop>(port, misfortune, calm_);
  address_ = "127.0.0.1:" + std::to_string(loop_->port());
  thread_ = std::jthread([this](const std::stop_token& stop) { loop_->run(stop); });
}

FlakyProxy::~FlakyProxy() {
  thread_.request_stop();
  thread_.join();
}

ProxyCounts FlakyProxy::counts() const {
  const std::lock_guard lock(loop_->mutex);
  return loop_->counts;
}

}  // namespace covey::testing
