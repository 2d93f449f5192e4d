# 32-bit ARM with NEON and fused multiply-add: Cortex-A7 and later, Raspberry Pi 2 and later. (Cortex-A8
# and A9 lack VFPv4.)
set(CMAKE_SYSTEM_PROCESSOR armv7l)
set(sysroot_name armv7)
set(debian_triplet arm-linux-gnueabihf)
set(emulator qemu-arm)
# Files of more than 2 GB. (Times stay 32 bits wide: Debian 12's armhf libraries are built so.)
set(architecture_flags
  "-march=armv7-a+simd -mfpu=neon-vfpv4 -mfloat-abi=hard -D_FILE_OFFSET_BITS=64")
include(${CMAKE_CURRENT_LIST_DIR}/debian_sysroot.cmake)
