#pragma once

#include <covey/secure_messages.hpp>
#include <cstddef>

/// How many bytes a message's contents have: identifiers, keys, signatures, ciphertexts and shares,
/// without what the wire's format puts around them.
namespace covey {

std::size_t content_bytes(const AdvertiseKeys& message);
std::size_t content_bytes(const ShareKeys& message);
std::size_t content_bytes(const ConfirmSurvivors& message);
std::size_t content_bytes(const Unmask& message);
std::size_t content_bytes(const NeighbourKeys& message);
std::size_t content_bytes(const PeerShares& message);
std::size_t content_bytes(const SurvivorSet& message);
std::size_t content_bytes(const SurvivorConfirmations& message);

}  // namespace covey
