#include "progress_line.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "command_line.hpp"
#include "run_summary.hpp"

namespace covey {
namespace {

// Often enough to see it move, seldom enough to cost nothing and to keep logs short.
constexpr auto kTerminalPause = std::chrono::milliseconds(100);
constexpr auto kPlainPause = std::chrono::seconds(5);

}  // namespace

ProgressLine::ProgressLine(std::uint32_t num_rounds, bool quiet)
    : num_rounds_(num_rounds),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      began_(std::chrono::steady_clock::now()) {}

ProgressLine::~ProgressLine() {
  if (open_) std::fputs("\n", stderr);
}

void ProgressLine::show(const RoundMetrics& metrics) {
  bytes_ += metrics.bytes_up + metrics.bytes_down;
  energy_j_ += metrics.energy_j.value_or(0);
  if (metrics.accuracy) accuracy_ = *metrics.accuracy;
  if (metrics.loss) loss_ = *metrics.loss;
  const std::uint32_t round = value_of(metrics.round);
  if (first_round_ == 0) first_round_ = round;
  const auto now = std::chrono::steady_clock::now();
  const bool last = metrics.committed && round == num_rounds_;
  if (quiet_ || (!last && now - last_shown_ <
                              (terminal_ ? std::chrono::steady_clock::duration(kTerminalPause)
                                         : std::chrono::steady_clock::duration(kPlainPause)))) {
    return;
  }
  last_shown_ = now;
  const double elapsed = std::chrono::duration<double>(now - began_).count();
  const double rounds_done = static_cast<double>(round - first_round_ + 1);
  std::string line = fmt::format("round {}/{}", round, num_rounds_);
  if (!metrics.committed) line += " abandoned";
  if (accuracy_ >= 0)
    line += fmt::format("  accuracy {:.2f}%  loss {:.4f}", 100 * accuracy_, loss_);
  if (accuracy_ < 0 && loss_ > 0) line += fmt::format("  loss {:.4f}", loss_);
  line += fmt::format("  clients {}/{}", metrics.accepted, metrics.selected);
  const std::string reasons = drop_outs(metrics.declined, metrics.lost, metrics.late);
  if (!reasons.empty()) line += fmt::format(" ({})", reasons);
  if (metrics.wall_s) {  // in the simulator only
    line += fmt::format("  virtual {}", human_seconds(seconds(metrics.ended.time_since_epoch())));
  }
  if (energy_j_ > 0) line += "  " + human_joules(energy_j_);
  line += "  " + human_bytes(static_cast<double>(bytes_));
  if (!last) {
    line += fmt::format("  {} left", human_seconds(elapsed / rounds_done * (num_rounds_ - round)));
  }
  std::fputs(terminal_ ? ("\r\033[K" + line).c_str() : (line + "\n").c_str(), stderr);
  std::fflush(stderr);
  open_ = terminal_;
}

}  // namespace covey
