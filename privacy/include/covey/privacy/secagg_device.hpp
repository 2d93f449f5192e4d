#pragma once

#include <covey/bytes.hpp>
#include <covey/digest.hpp>
#include <covey/ids.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/privacy/mask.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secret.hpp>
#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

namespace covey::privacy {

/// What both sides agree on before any key is made. Its hash enters every key, signature and
/// ciphertext: devices that were sent another model or plan derive other masks, and cannot be
/// summed with these (Pasquini et al. 2021).
struct AggregationContext {
  AggregationRound round;
  Digest model;  ///< as the devices are sent it
  Digest plan;   ///< digest_of(TrainingPlan)
  SecureAggregationPlan settings;

  Digest digest() const;
};

/// The masking itself, apart from the state machine, so that it can run on any thread. Masks one
/// contribution; the same one again gives the same bytes, another is refused.
class MaskJob {
 public:
  MaskJob(MaskCipher cipher, std::vector<MaskKey> masks);
  ~MaskJob();
  /// `packed`: the device's contribution; the same bytes with every mask added.
  Result<SharedBytes> run(const PackedFormat& format, std::span<const std::byte> packed,
                          unsigned threads = 1) const;

 private:
  struct Once;
  MaskCipher cipher_;
  std::vector<MaskKey> masks_;
  std::unique_ptr<Once> once_;
};

/// One device in one secure sum (Bonawitz et al. 2017, Figure 4; Bell et al. 2020, Algorithms 2 and
/// 3), without IO, clock or thread. Every step may be repeated with the same message (after a
/// reconnect) and then gives the same answer; with another message it is refused, so that no server
/// gets two answers. An error says what the server (or a peer) did wrong; the device then gives the
/// round up. Secrets are wiped as soon as no step needs them (so peers' shares are not taken again
/// behind the survivors). One thread at a time.
class SecAggDevice {
 public:
  struct Options {
    ClientId client{};
    AggregationContext context;
    std::shared_ptr<const DeviceCredentials> credentials;  ///< malicious server; else may be null
    std::unique_ptr<SecretSource> secrets;
  };
  static Result<SecAggDevice> make(Options options);
  SecAggDevice(SecAggDevice&&) noexcept;
  SecAggDevice& operator=(SecAggDevice&&) noexcept;
  ~SecAggDevice();

  const AggregationRound& round() const;
  const AdvertiseKeys& advertise() const;
  Result<ShareKeys> take(const NeighbourKeys& message);
  /// The masks to put on the contribution.
  Result<std::shared_ptr<const MaskJob>> take(const PeerShares& message);
  /// Shares at once where the server is honest; else the confirmation that must go around first.
  Result<std::variant<Unmask, ConfirmSurvivors>> take(const SurvivorSet& message);
  Result<Unmask> take(const SurvivorConfirmations& message);

 private:
  struct State;
  explicit SecAggDevice(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace covey::privacy
