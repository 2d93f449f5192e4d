#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "coordinator_harness.hpp"

/// Asynchronous aggregation with scripted devices.
namespace covey::server::testing {

/// K, devices at work, and devices there are.
inline CoordinatorOptions asynchronous_options(std::uint32_t buffer, std::uint32_t concurrency,
                                               std::uint32_t population) {
  CoordinatorOptions options = default_options(population);
  options.config.num_rounds = 100;
  options.config.asynchronous.buffer = buffer;
  options.config.asynchronous.concurrency = concurrency;
  return options;
}

/// Devices 1..count have checked in; those with work have the model and report when they are told
/// to.
inline std::unique_ptr<CoordinatorHarness> patient_fleet(std::uint64_t count,
                                                         CoordinatorOptions options) {
  auto h = std::make_unique<CoordinatorHarness>(std::move(options));
  h->start();
  for (std::uint64_t client = 1; client <= count; ++client) {
    h->add(client).reports = false;
    h->connect(h->device(client));
  }
  h->settle();
  return h;
}

inline void report(CoordinatorHarness& h, std::uint64_t client) {
  REQUIRE(h.device(client).task);
  h.speak(h.device(client), h.device(client).report());
}

/// What the action is about, in order.
inline std::vector<const JudgeUpdate*> judged(const CoordinatorHarness& h) {
  std::vector<const JudgeUpdate*> actions;
  for (const Action& action : h.log) {
    if (const auto* judge = std::get_if<JudgeUpdate>(&action)) actions.push_back(judge);
  }
  return actions;
}

inline std::uint32_t round_of(const ScriptedDevice& device) {
  return device.task ? value_of(device.task->round) : 0;
}

inline std::size_t at_work(const CoordinatorHarness& h) {
  return static_cast<std::size_t>(std::ranges::count_if(
      h.devices, [](const auto& entry) { return entry.second.task.has_value(); }));
}

}  // namespace covey::server::testing
