# Debian's cross compiler with a sysroot made by scripts/sysroot. The includer says:
#   sysroot_name      build/sysroot-<name>
#   debian_triplet    prefix of the compiler's name and folder of the libraries
#   emulator          qemu-user's program: the tests run under it
#   architecture_flags  for the compiler
set(CMAKE_SYSTEM_NAME Linux)
get_filename_component(project_root "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
set(CMAKE_SYSROOT "${project_root}/build/sysroot-${sysroot_name}")
if(NOT EXISTS "${CMAKE_SYSROOT}/packages")
  message(FATAL_ERROR "There is no complete sysroot in ${CMAKE_SYSROOT}: scripts/sysroot ${sysroot_name}")
endif()

set(CMAKE_C_COMPILER ${debian_triplet}-gcc)
set(CMAKE_CXX_COMPILER ${debian_triplet}-g++)
set(CMAKE_LIBRARY_ARCHITECTURE ${debian_triplet})
set(CMAKE_CROSSCOMPILING_EMULATOR "${emulator};-L;${CMAKE_SYSROOT}")

# Programs (protoc) are this machine's, all else is the device's.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR}
  "${CMAKE_SYSROOT}/usr/lib/${debian_triplet}/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${CMAKE_SYSROOT}")

# g++ notes that older compilers passed some arguments otherwise; nothing here meets their objects.
set(CMAKE_CXX_FLAGS_INIT "${architecture_flags} -Wno-psabi")
set(CMAKE_C_FLAGS_INIT "${architecture_flags}")
