#pragma once

#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <covey/server/store.hpp>
#include <covey/server/upload_spool.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "fault_plan.hpp"

namespace covey::simulation {

/// A directory that is gone with this object.
class TemporaryDirectory {
 public:
  static Result<std::unique_ptr<TemporaryDirectory>> make();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

/// What a fleet with faults has beside one without: the plan, and what a server leaves behind on
/// its disk.
struct FleetFaults {
  explicit FleetFaults(const FaultConfig& config) : plan(config) {}
  FaultPlan plan;
  std::unique_ptr<TemporaryDirectory> directory;
  std::optional<server::Store> store;              ///< closed while the server is down
  std::optional<RoundNumber> spool_oldest;         ///< uploads of earlier rounds were dropped
  RoundNumber committed{};                         ///< durable
  bool dies_announcing = false;                    ///< the commit at hand is its last
  std::map<std::uint32_t, std::uint64_t> reboots;  ///< of devices: their secrets never come again
};

}  // namespace covey::simulation
