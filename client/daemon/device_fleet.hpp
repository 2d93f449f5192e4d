#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <covey/client/trainer.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>
#include <covey/transport/connection.hpp>

#include "client/daemon/driver.hpp"
#include "server/daemon/kit.hpp"

namespace covey::client {

/// How a process takes part: usually as one device, in a load test as many.
struct FleetOptions {
  std::vector<Kit> kits;                          ///< one a device
  unsigned threads = 1;                           ///< that train
  bool charging = true;                           ///< told to the server at check-in
  bool metered = false;
  std::string device_class;                       ///< likewise; "": none
  RequiredPrivacy required_privacy;               ///< that a plan must keep
  bool hides_num_examples = false;                ///< says 1 at check-in for any number
  Driver::DropOut drop_out;                       ///< for tests of a server
  /// Examples a device has, by its certified number; 0 ends the program with a sentence.
  std::function<std::uint64_t(ClientId)> num_examples;
  std::function<std::unique_ptr<Trainer>()> make_trainer;
  std::function<void(Trainer&, ClientId)> prepare;
};

struct FleetResult {
  std::uint32_t devices = 0;
  std::uint32_t finished_ok = 0;
  std::uint32_t rounds_accepted = 0;  ///< updates counted by the server, of all devices
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  double wall_s = 0;
  std::string first_problem;  ///< "" if every device ended well
};

/// Takes part until the run is over, the server refuses, or SIGINT/SIGTERM.
Result<FleetResult> take_part(const FleetOptions& options);

}  // namespace covey::client
