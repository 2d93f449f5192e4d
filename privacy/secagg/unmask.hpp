#pragma once

#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/secure_messages.hpp>
#include <cstdint>
#include <memory>
#include <vector>

#include "secagg/shamir.hpp"

namespace covey::privacy {

/// The shares revealed of one secret, in the order in which they came. All match their commitments.
struct RevealedSecret {
  std::vector<std::uint32_t> points;
  std::vector<ShareBytes> shares;
};

/// Everything that takes the masks off one sum. Read only, so any thread may.
struct UnmaskJob::State {
  struct Device {
    ClientId client{};
    PublicKey mask_key{};
    Digest self_seed;  ///< commitment
  };
  /// One secret to reconstruct.
  struct Target {
    std::uint32_t position = 0;
    bool self_seed = false;  ///< of a survivor; else a dropped device's mask key
    /// The survivors that masked with a dropped device; empty for a survivor.
    std::vector<std::uint32_t> peers;
  };

  Digest context;
  MaskCipher cipher = MaskCipher::kAes128Ctr;
  std::uint32_t threshold = 0;
  std::vector<Device> devices;                                  ///< by position
  std::shared_ptr<const std::vector<RevealedSecret>> revealed;  ///< by position
  std::vector<Target> targets;
};

}  // namespace covey::privacy
