#include <algorithm>

#include "sum_harness.hpp"

// A correct device's answers, which SumHarness::deed may change on their way.
namespace covey::server::testing {

void SumHarness::react(SumDevice& device, Welcome&) {
  CheckIn check_in;
  check_in.conditions.num_examples = 10;
  check_in.conditions.precisions = {"fp32"};
  check_in.conditions.compressors = {"fp32"};
  say(device, std::move(check_in));
}

/// In the pool with a report that was never answered: it asks, as client::Participant does.
void SumHarness::react(SumDevice& device, Waiting&) {
  if (device.task && device.report) say(device, *device.report);
}

void SumHarness::react(SumDevice& device, Assignment& assignment) {
  const bool same = device.task && device.task->round == assignment.round &&
                    device.task->aggregation == assignment.aggregation;
  device.task = assignment;
  if (!same) {
    device.sum.reset();
    device.report.reset();
  }
  if (!assignment.plan.secure_aggregation.enabled()) {
    return report(device, contribution_of(assignment.round, device.client));
  }
  if (!device.sum) {
    privacy::SecAggDevice::Options options;
    options.client = device.client;
    options.context = {{assignment.run, assignment.round, assignment.aggregation},
                       assignment.model,
                       digest_of(assignment.plan),
                       assignment.plan.secure_aggregation};
    options.credentials = device.credentials;
    options.secrets =
        privacy::seeded_secrets(options_.seed, assignment.round, device.client, streams_++);
    device.sum.emplace(privacy::SecAggDevice::make(std::move(options)).value());
  }
  say(device, device.sum->advertise());
}

void SumHarness::react(SumDevice& device, NeighbourKeys& message) {
  if (!device.sum || device.sum->round() != message.round) return;
  auto shares = device.sum->take(message);
  if (!shares.ok()) return give_up(device, shares.error());
  say(device, std::move(*shares));
}

void SumHarness::react(SumDevice& device, PeerShares& message) {
  if (!device.sum || device.sum->round() != message.round) return;
  const auto job = device.sum->take(message);
  if (!job.ok()) return give_up(device, job.error());
  const SharedBytes contribution = contribution_of(device.task->round, device.client);
  report(device, (*job)->run(format_.sum->packed, contribution.span()).value());
}

void SumHarness::report(SumDevice& device, SharedBytes upload) {
  Report report;
  report.run = device.task->run;
  report.round = device.task->round;
  report.blob = sha256(upload.span());
  report.blob_size = upload.size();
  if (!format_.sum) {
    report.weight = 1;
    report.scalars.assign(format_.reported_scalars(0), 0.5);
  }
  device.report = report;
  device.upload = std::move(upload);
  say(device, std::move(report));
}

void SumHarness::react(SumDevice& device, UploadGrant& grant) {
  if (!device.report || grant.blob != device.report->blob) return;
  const std::uint64_t end =
      std::min<std::uint64_t>(grant.offset + grant.window, device.upload.size());
  const auto connection = device.connection;
  for (std::uint64_t at = grant.offset; at < end && device.connection == connection;) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kSumChunk, end - at));
    say(device, BlobChunk{grant.blob, at, device.upload.slice(static_cast<std::size_t>(at), size)});
    at += size;
  }
}

void SumHarness::react(SumDevice& device, SurvivorSet& message) {
  if (!device.sum || device.sum->round() != message.round) return;
  auto answer = device.sum->take(message);
  if (!answer.ok()) return give_up(device, answer.error());
  std::visit([&](auto& reply) { say(device, std::move(reply)); }, *answer);
}

void SumHarness::react(SumDevice& device, SurvivorConfirmations& message) {
  if (!device.sum || device.sum->round() != message.round) return;
  auto unmask = device.sum->take(message);
  if (!unmask.ok()) return give_up(device, unmask.error());
  say(device, std::move(*unmask));
}

void SumHarness::give_up(SumDevice& device, const Error& error) {
  const Decline decline{device.task->run, device.task->round, error.message};
  device.sum.reset();
  device.report.reset();
  device.task.reset();
  say(device, decline);
  Welcome again;
  react(device, again);
}

void SumHarness::task_done(SumDevice& device, RoundNumber round) {
  if (!device.task || device.task->round != round) return;
  device.sum.reset();
  device.report.reset();
  device.task.reset();
  Welcome again;
  react(device, again);
}

}  // namespace covey::server::testing
