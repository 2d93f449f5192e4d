#pragma once

#include <covey/ids.hpp>
#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/server/fleet_record.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace covey::simulation {

/// How one round went.
struct RecordedRound {
  RoundNumber round{};
  bool committed = true;
  double duration_s = 0;
  std::set<ClientId> cohort;    ///< was given work
  std::set<ClientId> accepted;  ///< of it
};

/// What is known of one device. Times in seconds since the record's beginning.
struct RecordedDevice {
  std::vector<std::pair<double, double>> online;  ///< when it was connected, in order
  bool online_at_end = false;
  std::vector<double> example_s;  ///< seconds of training an example and epoch, of each report
  double transferred_bytes = 0;   ///< of models and updates,
  double transfer_s = 0;          ///< from the assignment to the acceptance without the training
  std::optional<std::string> device_class;  ///< as it last said; "": none
};

/// A server's record of its devices (`covey::server::FleetRecord`), as the simulator needs it.
class RecordedFleet {
 public:
  /// `config`: of the recorded run.
  static RecordedFleet make(const std::vector<server::FleetEvent>& events, const RunConfig& config);

  const std::map<ClientId, RecordedDevice>& devices() const { return devices_; }
  const std::vector<RecordedRound>& rounds() const { return rounds_; }
  double duration_s() const { return duration_s_; }

  /// False: the record's beginning is not there, so rounds, connections and classes are missing.
  bool complete() const { return complete_; }
  /// The [client.class] tables that devices' plans followed; "": that of [client].
  std::set<std::string> plans() const;

  /// Whose plans devices get in a simulation of their trace.
  enum class Plans : std::uint8_t {
    kOwn,     ///< of their classes
    kCommon,  ///< that of [client]: a device's speed makes up for its class's local epochs
  };
  /// FedScale's client_device_capacity of devices 1 to `population`, client 0 being device 1; a
  /// device that never reported has the median of those that did. Nothing where none did: under
  /// secure aggregation and differential privacy devices do not tell.
  std::optional<std::string> capacity_trace(std::uint32_t population, Plans plans) const;
  /// FedScale's client_behave_trace, likewise. Who was connected at the end stays so; a device that
  /// never was never is.
  std::string availability_trace(std::uint32_t population) const;

 private:
  struct Task {
    RoundNumber round{};
    double assigned_s = 0;
    double model_bytes = 0;
    bool whole = true;  ///< on one connection
    std::string device_class;
    std::optional<server::FleetEvent> report;
  };
  struct Connection {
    bool open = false;
    double since_s = 0;
    bool known = false;
    std::optional<Task> task;
  };
  /// What a device of a class does in a round.
  struct Plan {
    double local_epochs = 1;
    std::uint32_t batch_size = 0;  ///< 0: all examples
  };
  void take(const server::FleetEvent& event, double at_s);
  void finish_task(const Task& task, RecordedDevice& device, double at_s) const;
  void restart(double at_s);
  RecordedRound& round_of(RoundNumber round);
  const Plan& plan_of(const std::string& device_class) const;
  double epochs_done(const Plan& plan, const server::FleetEvent& report) const;

  std::map<ClientId, RecordedDevice> devices_;
  std::map<ClientId, Connection> connections_;
  std::map<RoundNumber, RecordedRound> open_;  ///< that did not end yet
  std::vector<RecordedRound> rounds_;
  double duration_s_ = 0;
  bool complete_ = true;
  std::map<std::string, Plan> plans_;  ///< of the run file's classes, and of "" for [client]
  bool partial_work_ = false;
};

/// The record's traces as files in `folder` (made if absent): capacity.json, where there is one,
/// and availability.json. Sets the keys of `fleet` that make a simulation of them: the devices'
/// links then have no latency of their own, since it is in the measured speeds.
Result<void> write_traces(const RecordedFleet& recorded, std::uint32_t population,
                          RecordedFleet::Plans plans, const std::string& folder,
                          FleetConfig& fleet);

}  // namespace covey::simulation
