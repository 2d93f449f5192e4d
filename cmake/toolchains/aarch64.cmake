# 64-bit ARM: Raspberry Pi 3 and later with a 64-bit system, phones, servers.
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(sysroot_name aarch64)
set(debian_triplet aarch64-linux-gnu)
set(emulator qemu-aarch64)
set(architecture_flags "")
include(${CMAKE_CURRENT_LIST_DIR}/debian_sysroot.cmake)
