# Flags of the bfloat16 kernels, one set of instructions each (kernels_bf16.cpp checks for exactly
# these). A compiler without AVX512_BF16 builds that file empty.
include(CheckCXXCompilerFlag)
set(bf16_options -O3 $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>)
set_source_files_properties(bf16/kernels_bf16_baseline.cpp PROPERTIES
  COMPILE_OPTIONS "${bf16_options}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  check_cxx_compiler_flag(-mavx512bf16 COVEY_HAS_AVX512_BF16)
  set(bf16_avx512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma)
  set_source_files_properties(bf16/kernels_bf16_avx2.cpp PROPERTIES
    COMPILE_OPTIONS "${bf16_options};-mavx2;-mfma")
  set_source_files_properties(bf16/kernels_bf16_avx512.cpp PROPERTIES
    COMPILE_OPTIONS "${bf16_options};${bf16_avx512}")
  if(COVEY_HAS_AVX512_BF16)
    set_source_files_properties(bf16/kernels_bf16_dot.cpp PROPERTIES
      COMPILE_OPTIONS "${bf16_options};${bf16_avx512};-mavx512bf16")
  endif()
endif()
