#include "cohort.hpp"

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>

namespace covey::server {
namespace {

// Counts in reports are the devices' own claims: a sum of them must not wrap.
std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) {
  return b > UINT64_MAX - a ? UINT64_MAX : a + b;
}

/// What accepted reports say together. Doubles are added in the order of the calls.
class ReportTally {
 public:
  explicit ReportTally(RoundMetrics& metrics) : metrics_(metrics) {}

  void add(const Report& report) {
    metrics_.examples = saturating_add(metrics_.examples, report.num_examples);
    metrics_.train_steps = saturating_add(metrics_.train_steps, report.steps);
    if (!std::isfinite(report.train_loss)) return;
    loss_sum_ += report.train_loss * static_cast<double>(report.num_examples);
    loss_examples_ += static_cast<double>(report.num_examples);
  }
  void finish() { metrics_.train_loss = loss_examples_ > 0 ? loss_sum_ / loss_examples_ : 0; }

 private:
  RoundMetrics& metrics_;
  double loss_sum_ = 0;
  double loss_examples_ = 0;
};

}  // namespace

void Cohort::begin(const std::shared_ptr<const ModelVersion>& version,
                   const std::vector<ClientId>& clients, Time now) {
  clear();
  round_ = version->round;
  for (const ClientId client : clients) add(version, client, now);
}

Member& Cohort::add(const std::shared_ptr<const ModelVersion>& version, ClientId client, Time now) {
  // Cohorts are drawn sorted: at the end is where a member most often belongs.
  const std::size_t before = members_.size();
  const auto entry = members_.try_emplace(members_.end(), client);
  COVEY_ASSERT(members_.size() == before + 1);
  Member& member = entry->second;
  index_.emplace(client, &member);
  member.client = client;
  member.round = version->round;
  member.version = version;
  member.assigned = member.last_heard = now;
  return member;
}

void Cohort::remove(const Member& member) {
  if (!member.undecided()) --count_of(member.state);
  const ClientId client = member.client;  // a copy: the key goes with the member
  index_.erase(client);
  members_.erase(client);
}

void Cohort::clear() {
  round_ = RoundNumber{};
  members_.clear();
  index_.clear();
  accepted_ = rejected_ = left_ = missed_ = 0;
}

Member* Cohort::find(ClientId client) {
  const auto found = index_.find(client);
  return found != index_.end() ? found->second : nullptr;
}

std::size_t& Cohort::count_of(MemberState outcome) {
  switch (outcome) {
    case MemberState::kAccepted:
      return accepted_;
    case MemberState::kRejected:
      return rejected_;
    case MemberState::kMissed:
      return missed_;
    default:
      COVEY_ASSERT(outcome == MemberState::kLeft);
      return left_;
  }
}

void Cohort::decide(Member& member, MemberState outcome) {
  COVEY_ASSERT(member.undecided());
  member.state = outcome;
  ++count_of(outcome);
}

bool Cohort::all_silent_since(Time moment) const {
  return std::ranges::none_of(members(), [moment](const Member& member) {
    if (!member.undecided()) return false;
    return member.state != MemberState::kWorking || member.last_heard > moment;
  });
}

void Cohort::tally(RoundMetrics& metrics) const {
  ReportTally reports(metrics);
  for (const Member& member : members()) {
    if (member.accepted()) {
      reports.add(*member.report);
    } else if (member.state == MemberState::kLeft) {
      ++metrics.declined;
    } else if (member.state != MemberState::kRejected) {
      const bool lost = member.undecided() ? !member.connection : member.lost;
      ++(lost ? metrics.lost : metrics.late);
    }
  }
  reports.finish();
  metrics.selected = static_cast<std::uint32_t>(size());
  metrics.accepted = static_cast<std::uint32_t>(accepted_);
  metrics.rejected = static_cast<std::uint32_t>(rejected_);
  metrics.dropped = static_cast<std::uint32_t>(size() - accepted_ - rejected_);
}

void Cohort::tally(RoundMetrics& metrics, std::span<const ClientId> accepted) const {
  ReportTally reports(metrics);
  for (const ClientId client : accepted) reports.add(*members_.at(client).report);
  reports.finish();
}

}  // namespace covey::server
