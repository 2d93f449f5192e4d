#pragma once

#include <cstddef>
#include <cstdint>

/// Kernels that add a keystream to a packed vector, compiled once per instruction set and chosen at
/// run time. Plain structs and functions only: files compiled for processors that we may not be
/// running on include this, so nothing here may have an inline body that the linker could pick from
/// the wrong one.
namespace covey::privacy::masking {

/// Adds the keystream's rows [first_row, first_row + rows) to as many rows of a packed vector.
struct KeystreamTask {
  const std::uint8_t* key = nullptr;  ///< 16 bytes for AES-128, 32 for ChaCha20
  bool subtract = false;
  std::uint32_t rows_per_block = 0;  ///< m: carries run up so many rows
  std::uint64_t first_row = 0;       ///< of the whole vector; a multiple of m
  std::size_t rows = 0;              ///< a multiple of m
  std::uint64_t* sum = nullptr;      ///< first_row's, 8 words a row
};

/// Where a kernel keeps what it derives from a key, so that its owner can wipe it. One thread's.
struct alignas(64) KeystreamWorkspace {
  std::uint8_t round_keys[11][16];
  std::uint8_t second_round[256][16];
};

using AddKeystream = void (*)(const KeystreamTask& task, KeystreamWorkspace& workspace);

// Null where the compiler cannot make them; the caller checks that the processor can run them.
AddKeystream aes_ctr_vaes512();
AddKeystream aes_ctr_vaes256();
AddKeystream aes_ctr_aesni();
AddKeystream aes_ctr_armv8();

}  // namespace covey::privacy::masking
