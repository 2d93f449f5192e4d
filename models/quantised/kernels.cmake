# The int8 engine's flags, included by models/CMakeLists.txt. Its kernels are compiled once per
# instruction set; kernels_int8.cpp checks for exactly these before it calls them. Nothing in this
# folder may fuse a multiplication and an addition: results are the same bits everywhere.
file(GLOB int8_sources ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
set_source_files_properties(${int8_sources} PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
# Optimised in every build type: without it a debug build trains thirty times slower.
set(int8_options -O3 -ffp-contract=off $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/kernels_int8_portable.cpp PROPERTIES
  COMPILE_OPTIONS "${int8_options}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/kernels_int8_avx2.cpp PROPERTIES
    COMPILE_OPTIONS "${int8_options};-mavx2")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/kernels_int8_vnni.cpp PROPERTIES
    COMPILE_OPTIONS
      "${int8_options};-mavx512f;-mavx512vl;-mavx512bw;-mavx512dq;-mavx512vnni")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/kernels_int8_dot.cpp PROPERTIES
    COMPILE_OPTIONS "${int8_options};-march=armv8.2-a+dotprod")
endif()
