#pragma once

#include <covey/ids.hpp>
#include <covey/privacy/identity.hpp>
#include <covey/privacy/neighbourhood.hpp>
#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secagg_device.hpp>
#include <covey/result.hpp>
#include <covey/secure_messages.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace covey::privacy {

/// Who did something wrong, and what.
struct Fault {
  ClientId client{};
  std::string what;
};

/// What takes the masks off a sum: everything that was revealed, as a value, for any thread.
class UnmaskJob {
 public:
  struct State;
  explicit UnmaskJob(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  struct Figures {
    std::uint64_t keystream_bytes = 0;
    std::uint64_t key_agreements = 0;
    double reconstruct_s = 0, agree_s = 0, mask_s = 0;  ///< wall time of the three parts
  };
  /// Reconstructs every secret, checks it against its public key or commitment, and takes its masks
  /// off `sum` (the packed sum of the masked inputs). Error: a device dealt shares that do not make
  /// the secret it committed to; `culprit` names it, `sum` is as it was.
  Result<Figures> run(const PackedFormat& format, std::span<std::uint64_t> sum, unsigned threads,
                      std::optional<ClientId>* culprit = nullptr) const;

 private:
  std::shared_ptr<const State> state_;
};

/// The server's side of one secure sum: who advertised, shared, is in the sum, and which shares
/// were revealed. Knows no connection and no clock: the coordinator decides when a step closes.
/// Answers of the steps may come in any order; the same message again is harmless. O(n k) memory.
/// One thread at a time.
class SecAggServer {
 public:
  /// `authority`: where devices have identities, to refuse one that is not certified before its
  /// neighbours would have to; without it only signatures are checked.
  explicit SecAggServer(AggregationContext context,
                        std::optional<AuthorityKey> authority = std::nullopt);
  SecAggServer(SecAggServer&&) noexcept;
  SecAggServer& operator=(SecAggServer&&) noexcept;
  ~SecAggServer();

  enum class Step : std::uint8_t { kAdvertise, kShare, kMask, kConfirm, kUnmask };
  Step step() const;

  // Messages; each of the step at hand (or, repeated, of an earlier one). Error: what is wrong with
  // it, said of its sender, who is to be rejected; nothing changed.
  Result<void> add(ClientId client, const AdvertiseKeys& message);
  Result<void> add(ClientId client, const ShareKeys& message);
  Result<void> add(ClientId client, const ConfirmSurvivors& message);
  Result<void> add(ClientId client, const Unmask& message);
  /// The masked input of this device is in the sum. Only in kMask, of a device that awaits() says
  /// is waited for, or once more of the same (asserted).
  void add_masked_input(ClientId client);
  /// Nothing more will come of this device in this step or later (it left or was rejected).
  void leave(ClientId client);

  /// Devices from which the step at hand still waits for an answer; in kAdvertise 0, for who may
  /// still come is not known here.
  std::size_t awaited() const;
  bool awaits(ClientId client) const;
  bool advertised(ClientId client) const;
  bool shared(ClientId client) const;  ///< its keys, in time
  /// Closes the step at hand and begins the next. Error, a sentence: too few are left; the sum must
  /// be abandoned. From kMask it goes to kConfirm with a malicious server in mind, else to kUnmask,
  /// which is the last: closing that says only whether the sum can be unmasked.
  Result<void> close_step();
  /// Every secret has its t shares: nobody else needs to be waited for.
  bool can_unmask() const;

  // What a device is to be sent in the step at hand; nothing for one that takes no part in it.
  std::optional<NeighbourKeys> neighbour_keys(ClientId client) const;         ///< kShare
  std::optional<PeerShares> peer_shares(ClientId client) const;               ///< kMask
  std::optional<SurvivorSet> survivor_set(ClientId client) const;             ///< kConfirm, kUnmask
  std::optional<SurvivorConfirmations> confirmations(ClientId client) const;  ///< kUnmask

  const Neighbourhood& neighbourhood() const;  ///< from kShare on
  std::size_t survivors() const;               ///< in the sum, from the end of kMask on
  /// Error, a sentence: which device's secret cannot be reconstructed.
  Result<UnmaskJob> unmask() const;
  /// What devices were seen or said to do wrong so far (wrong shares, unreadable ciphertexts).
  const std::vector<Fault>& faults() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "advertise", "share", "mask", "confirm", "unmask".
std::string_view to_string(SecAggServer::Step step);

}  // namespace covey::privacy
