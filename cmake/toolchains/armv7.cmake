# 32-bit ARM with NEON and fused multiply-add: Cortex-A7 and later, Raspberry Pi 2 and later. (Cortex-A8
# and A9 lack VFPv4.)
set(CMAKE_SYSTEM_PROCESSOR armv7l)
set(sysroot_name armv7)
set(debian_triplet arm-linux-gnueabihf)
set(emulator qemu-arm)
include(${CMAKE_CURRENT_LIST_DIR}/debian_sysroot.cmake)

string(APPEND CMAKE_CXX_FLAGS_INIT " -march=armv7-a+simd -mfpu=neon-vfpv4 -mfloat-abi=hard")
string(APPEND CMAKE_C_FLAGS_INIT " -march=armv7-a+simd -mfpu=neon-vfpv4 -mfloat-abi=hard")
# Files of more than 2 GB. (Times stay 32 bits wide: Debian 12's armhf libraries are built so, and the
# kernel's 64-bit calls end where their headers do.)
string(APPEND CMAKE_CXX_FLAGS_INIT " -D_FILE_OFFSET_BITS=64")
string(APPEND CMAKE_C_FLAGS_INIT " -D_FILE_OFFSET_BITS=64")
