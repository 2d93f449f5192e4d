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

}  // namespace

void Cohort::begin(RoundNumber round, const std::vector<ClientId>& clients, Time now) {
  clear();
  round_ = round;
  members_.reserve(clients.size());
  for (const ClientId client : clients) {
    Member& member = members_.emplace_back();
    member.client = client;
    member.last_heard = now;
  }
}

void Cohort::clear() {
  round_ = RoundNumber{};
  members_.clear();
  accepted_ = rejected_ = left_ = missed_ = 0;
}

Member* Cohort::find(ClientId client) {
  const auto found = std::ranges::lower_bound(members_, client, {}, &Member::client);
  return found != members_.end() && found->client == client ? &*found : nullptr;
}

void Cohort::decide(Member& member, MemberState outcome) {
  COVEY_ASSERT(member.undecided());
  member.state = outcome;
  COVEY_ASSERT(!member.undecided());
  if (outcome == MemberState::kAccepted) {
    ++accepted_;
  } else if (outcome == MemberState::kRejected) {
    ++rejected_;
  } else if (outcome == MemberState::kMissed) {
    ++missed_;
  } else {
    ++left_;
  }
}

bool Cohort::all_silent_since(Time moment) const {
  return std::ranges::none_of(members_, [moment](const Member& member) {
    if (!member.undecided()) return false;
    return member.state != MemberState::kWorking || member.last_heard > moment;
  });
}

void Cohort::tally(RoundMetrics& metrics) const {
  double loss_sum = 0;
  double loss_examples = 0;
  for (const Member& member : members_) {
    if (!member.accepted()) continue;
    const Report& report = *member.report;
    metrics.examples = saturating_add(metrics.examples, report.num_examples);
    metrics.train_steps = saturating_add(metrics.train_steps, report.steps);
    if (!std::isfinite(report.train_loss)) continue;
    loss_sum += report.train_loss * static_cast<double>(report.num_examples);
    loss_examples += static_cast<double>(report.num_examples);
  }
  metrics.train_loss = loss_examples > 0 ? loss_sum / loss_examples : 0;
  metrics.selected = static_cast<std::uint32_t>(size());
  metrics.accepted = static_cast<std::uint32_t>(accepted_);
  metrics.rejected = static_cast<std::uint32_t>(rejected_);
  metrics.dropped = static_cast<std::uint32_t>(size() - accepted_ - rejected_);
}

}  // namespace covey::server
