#pragma once

#include <covey/privacy/neighbourhood.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "secagg/bindings.hpp"
#include "secagg/unmask.hpp"

namespace covey::privacy {

/// One device of the directory.
struct Member {
  KeyAdvertisement keys;
  std::vector<std::uint32_t> neighbours;  ///< positions, ascending
  bool left = false;

  bool shared = false;
  Digest share_keys;  ///< fingerprint
  Digest self_seed;   ///< commitment
  ShareCommitment own_share{};
  /// For each neighbour: the commitments, for good; its ciphertext, until masking is over.
  struct Dealt {
    ShareCommitment self_seed{};
    ShareCommitment mask_key{};
  };
  std::vector<Dealt> dealt;
  std::vector<std::byte> ciphertexts;  ///< kSharesCiphertextBytes each

  bool member = false;    ///< shared, and so did t of its neighbourhood: it masks
  bool survivor = false;  ///< its masked input is in the sum
  std::optional<Signature> confirmation;
  bool confirmed_in_time = false;
  std::optional<Digest> unmask;  ///< fingerprint
};

struct SecAggServer::State {
  AggregationContext context;
  Digest digest;
  std::optional<AuthorityKey> authority;
  Step step = Step::kAdvertise;
  std::vector<Fault> faults;

  std::map<ClientId, KeyAdvertisement> advertised;  ///< until the directory is made of it
  std::set<PublicKey> keys;

  // From kShare on.
  Neighbourhood size;
  std::vector<ClientId> clients;  ///< the directory: by position, ascending
  std::vector<Member> members;    ///< by position
  Digest graph;                   ///< the seed of the neighbour graph
  std::vector<Digest> directory;  ///< malicious server only
  std::vector<std::byte> survivors;
  std::size_t num_survivors = 0;

  // From kUnmask on. Shared with the jobs that were handed out, and then copied before it changes.
  std::shared_ptr<std::vector<RevealedSecret>> revealed;
  mutable bool handed_out = false;
  std::vector<char> needed;    ///< by position: its secret must be reconstructed
  std::size_t unfinished = 0;  ///< needed, with fewer than t shares so far

  bool malicious_server() const {
    return context.settings.threat_model == ThreatModel::kMaliciousServer;
  }
  Member* find(ClientId client);
  const Member* find(ClientId client) const;
  std::uint32_t position_of(const Member& member) const {
    return static_cast<std::uint32_t>(&member - members.data());
  }
  /// Where `neighbour` stands among the neighbours of `member`, who has it.
  std::size_t index_of(const Member& member, std::uint32_t neighbour) const;

  /// How many of the neighbourhood, the device included if it is one, have `property`.
  template <typename Property>
  std::size_t count_around(const Member& member, const Property& property) const {
    std::size_t count = property(member) ? 1 : 0;
    for (const std::uint32_t position : member.neighbours) count += property(members[position]);
    return count;
  }
  /// Enough neighbours confirmed in time for this device to believe them and itself.
  bool confirmations_suffice(const Member& member) const;
  /// It said itself that it knows the survivors; in this step or, late, in the next.
  bool may_unmask(const Member& member) const;
  bool awaits(const Member& member) const;

  Result<void> check_advertisement(const KeyAdvertisement& keys) const;
  Result<void> check_share_keys(const Member& sender, const ShareKeys& message) const;
  Result<void> check_unmask(const Member& sender, const Unmask& message) const;
  void keep_share(const Member& holder, const RevealedShare& share);

  Result<void> close_advertise();
  Result<void> close_share();
  Result<void> close_mask();
  Result<void> close_confirm();
  /// Error where one of the needed secrets can no longer get its t shares from those who `can`
  /// reveal.
  template <typename Can>
  Result<void> check_reconstructible(const Can& can) const;
  void begin_unmask();
};

/// "device 7", as messages name it.
std::string device_name(ClientId client);

}  // namespace covey::privacy
