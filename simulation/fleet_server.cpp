#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "fleet.hpp"

// The server's side: its actions are carried out here, as server/daemon/driver.cpp does where it is
// deployed.
namespace covey::simulation {
namespace {

// A round that fails so often will not succeed: at 99% failures each, one in 23,000 would get here.
constexpr std::uint32_t kMostAbandoned = 1000;

}  // namespace

void Fleet::on(const ServerTimer& event) {
  if (server_ && event.generation == server_timer_generation_) tell_server(server::TimerFired{});
}

void Fleet::tell_server(server::Event event) {
  server_inbox_.push_back(std::move(event));
  if (telling_server_) return;  // an answer to the event at hand: told after it
  telling_server_ = true;
  for (std::size_t i = 0; i < server_inbox_.size() && server_; ++i) {
    server::Actions actions;
    server_->coordinator.handle(now_, std::move(server_inbox_[i]), actions);
    carry_out(actions);
    if (invariants_ && server_) invariants_->settled(server_->coordinator);
  }
  server_inbox_.clear();
  telling_server_ = false;
}

void Fleet::carry_out(server::Actions& actions) {
  const std::size_t last = faults_ ? actions_until_crash(actions.size()) : SIZE_MAX;
  for (std::size_t i = 0; i < actions.size() && server_; ++i) {
    if (i == last) return crash_server();
    server::Action& action = actions[i];
    if (auto* send = std::get_if<server::Send>(&action)) {
      send_down(send->connection, std::move(send->message));
    } else if (const auto* close = std::get_if<server::Close>(&action)) {
      close_from_server(close->connection);
    } else if (const auto* timer = std::get_if<server::SetTimer>(&action)) {
      queue_.push(std::max(timer->at, now_), ServerTimer{++server_timer_generation_});
    } else if (const auto* metrics = std::get_if<server::PublishMetrics>(&action)) {
      publish(metrics->metrics);
    } else if (auto* end = std::get_if<server::RunFinished>(&action)) {
      finished_ = std::move(*end);
    } else if (auto answer = compute(action)) {
      tell_server(std::move(*answer));
    }
  }
  if (last == actions.size() && server_) crash_server();
}

std::optional<server::Event> Fleet::compute(server::Action& action) {
  if (const auto* open = std::get_if<server::OpenUpload>(&action)) {
    if (disk_full()) return server::UploadOpened{open->key, failed("no space left on device")};
    if (faults_) tidy_spool(*open);
    return server::UploadOpened{open->key, server_->spool->open(open->key, open->size)};
  }
  if (const auto* write = std::get_if<server::WriteUpload>(&action)) {
    if (disk_full()) return server::UploadFailed{write->key, failed("no space left on device")};
    auto written = server_->spool->write(write->key, write->offset, write->payload);
    if (!written.ok()) return server::UploadFailed{write->key, written.error()};
    return std::nullopt;
  }
  if (const auto* drop = std::get_if<server::DropUpload>(&action)) {
    server_->spool->drop(drop->key);
    return std::nullopt;
  }
  if (const auto* update = std::get_if<server::JudgeUpdate>(&action)) return judge(*update);
  if (const auto* begin = std::get_if<server::BeginSum>(&action)) {
    server_->pipeline.begin(begin->round);
    summed_.clear();
    if (invariants_) {
      invariants_->summing(begin->round, server_->coordinator.committed_round());
    }
    return std::nullopt;
  }
  if (const auto* applying = std::get_if<server::ApplyStrategy>(&action)) {
    if (invariants_ && !recalling()) {
      const auto& pipeline = server_->pipeline;
      invariants_->applying(applying->round, pipeline.counted().size(), pipeline.summed_weight());
    }
    return apply(*applying);
  }
  if (const auto* commit = std::get_if<server::CommitRound>(&action)) {
    auto answer = commit_round(*commit);
    if (commit->model) write_down(commit->metrics.round);
    return answer;
  }
  if (const auto* evaluate = std::get_if<server::EvaluateModel>(&action)) {
    return evaluation_of(evaluate->round);
  }
  if (auto* note = std::get_if<server::Note>(&action)) {
    if (problem_of_round_.empty())
      problem_of_round_ = std::move(note->text);  // the cause comes first
  }
  return std::nullopt;
}

server::Event Fleet::judge(const server::JudgeUpdate& action) {
  auto bytes = server_->spool->read(action.key);
  if (!bytes.ok()) return server::UploadFailed{action.key, bytes.error()};
  auto rejection = judgement_of(action, *bytes);
  if (!rejection && invariants_)
    invariants_->counted(action, server_->coordinator.committed_round());
  if (!rejection && checks_sums()) summed_[action.key.client] = action.report.blob;
  if (!rejection) {
    summed_s_ += std::exchange(
        records_[static_cast<std::size_t>(value_of(action.key.client))].unsettled_s, 0);
  }
  return server::UpdateJudged{action.key, std::move(rejection)};
}

/// What the simulation knows beside the server's own figures.
void Fleet::add_device_figures(RoundMetrics& metrics) {
  settle_trainings(metrics);
  metrics.energy_j = std::exchange(energy_j_, 0);
  metrics.wasted_s = std::exchange(wasted_s_, 0);
  add_computed_figures(metrics);
}

void Fleet::publish(const RoundMetrics& metrics) {
  if (invariants_) invariants_->published(metrics);
  abandoned_in_a_row_ = metrics.committed ? 0 : abandoned_in_a_row_ + 1;
  if (metrics.committed) last_commit_ = now_;
  if (abandoned_in_a_row_ == kMostAbandoned) {
    internal_error_ = failed(fmt::format(
        "round {} was abandoned {} times in a row; the last time {} devices were selected, {} "
        "accepted, "
        "{} rejected, and {} declined or did not report{}; selection.quorum asks for more",
        value_of(metrics.round), kMostAbandoned, metrics.selected, metrics.accepted,
        metrics.rejected, metrics.dropped,
        problem_of_round_.empty() ? "" : " (first: " + problem_of_round_ + ")"));
  }
  problem_of_round_.clear();
  RoundMetrics shown = metrics;
  if (!has_accuracy(experiment_.plan.model)) shown.accuracy.reset();
  add_device_figures(shown);
  if (options_.on_round) options_.on_round(shown);
  if (faults_) record_published(metrics);
  result_.rounds.push_back(std::move(shown));
}

}  // namespace covey::simulation
