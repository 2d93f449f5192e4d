#pragma once

#include <cstdint>

/// What one byte of fuzz_secagg's input asks for (modulo the number of them); the arguments follow
/// as bytes. "device": one byte, modulo the devices there are.
namespace covey::fuzz {

enum class SecAggDeed : std::uint8_t {
  kAnswer,     ///< device: takes what the server has for it in this step, and answers
  kAllAnswer,  ///< every device does
  kCloseStep,
  kLeave,       ///< device
  kDamageUp,    ///< device, damage: its answer arrives damaged
  kDamageDown,  ///< device, damage: what the server has for it arrives damaged
  kRawUp,       ///< device, bytes: a message of the fuzzer's own to the server
  kRawDown,     ///< device, bytes: to the device
  kReplayUp,    ///< device, which: an earlier message to the server, now from this device
  kReplayDown,  ///< device, which: an earlier message to a device, now to this one
  kUnmask,
  kCount,
};
// damage: a count (modulo 4), then (position, 2 bytes; xor, 1 byte) each.
// bytes: 1 where the message's round is to be set right, else 0; length, 2 bytes; an Envelope.

}  // namespace covey::fuzz
