#pragma once

#include <string>
#include <vector>

#include "process.hpp"

namespace covey::testing {

/// Certificates, a server and its devices in one folder.
class Fleet {
 public:
  Fleet(const std::string& name, const std::string& run_file, int devices = 8);

  Process server(std::vector<std::string> more = {});  ///< listens; a restart takes the same port
  Process client(int device, std::vector<std::string> more = {});
  /// The first `devices` in one process.
  Process clients(int devices, std::vector<std::string> more = {});
  nlohmann::json status(const std::string& key);
  /// The SHA-256 of the model that the simulator ends with.
  std::string simulated_model();

  std::string server_log() const { return read_file(folder_ / "server.err"); }
  std::size_t committed() const { return count(server_log(), "round committed"); }
  const std::string& address() const { return address_; }
  const TemporaryFolder& folder() const { return folder_; }

 private:
  TemporaryFolder folder_;
  std::string address_ = "127.0.0.1:0";
};

/// Exit code 0, and soon.
void check_ended_well(Process& process, const std::string& who);

}  // namespace covey::testing
