#pragma once

#include <cstdint>

namespace covey::privacy::masking {

/// What the processor (with the operating system) can run, lowered by the environment's COVEY_ISA:
/// "sse2" leaves what every processor of the architecture has, "avx2" nothing wider than that.
struct InstructionSet {
  bool aes = false;  ///< x86: AES-NI with SSSE3
  bool avx2 = false;
  bool avx512 = false;  ///< F, VL, BW and DQ
  bool vaes = false;    ///< AES on the wide registers above
  bool armv8_aes = false;
};

/// Without COVEY_ISA.
InstructionSet processor_instruction_set();
InstructionSet allowed_instruction_set();

}  // namespace covey::privacy::masking
