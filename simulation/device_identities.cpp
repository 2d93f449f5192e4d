#include "device_identities.hpp"

#include <covey/privacy/secret.hpp>

namespace covey::simulation {
namespace {

constexpr std::uint64_t kIdentityStream = 2;  // of seeded_secrets

}  // namespace

Result<DeviceIdentities> DeviceIdentities::make(const Experiment& experiment) {
  DeviceIdentities identities;
  if (experiment.plan.secure_aggregation.threat_model != ThreatModel::kMaliciousServer) {
    return identities;
  }
  const auto secrets =
      privacy::seeded_secrets(experiment.config.seed, {}, {}, kIdentityStream);
  COVEY_ASSIGN(const auto authority, privacy::IdentityAuthority::make(*secrets));
  identities.authority_ = authority.key();
  for (std::uint32_t device = 0; device < experiment.population(); ++device) {
    COVEY_ASSIGN(auto issued, authority.issue(static_cast<ClientId>(device), *secrets));
    identities.credentials_.push_back(
        std::make_shared<const privacy::DeviceCredentials>(std::move(issued)));
  }
  return identities;
}

std::shared_ptr<const privacy::DeviceCredentials> DeviceIdentities::of(ClientId client) const {
  return credentials_.empty() ? nullptr
                              : credentials_[static_cast<std::size_t>(value_of(client))];
}

}  // namespace covey::simulation
