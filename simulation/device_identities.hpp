#pragma once

#include <covey/privacy/identity.hpp>
#include <covey/result.hpp>
#include <covey/simulation/experiment.hpp>
#include <memory>
#include <optional>
#include <vector>

namespace covey::simulation {

/// What provisioning gives real devices: an identity each, certified by the run's authority. Made only where
/// the plan does not trust the server; from the run's seed.
class DeviceIdentities {
 public:
  static Result<DeviceIdentities> make(const Experiment& experiment);
  /// Null where devices need none.
  std::shared_ptr<const privacy::DeviceCredentials> of(ClientId client) const;
  /// Whose certificates they are; nothing where devices need none.
  const std::optional<privacy::AuthorityKey>& authority() const { return authority_; }

 private:
  std::optional<privacy::AuthorityKey> authority_;
  std::vector<std::shared_ptr<const privacy::DeviceCredentials>> credentials_;
};

}  // namespace covey::simulation
