# The masks' kernels, included by privacy/CMakeLists.txt. Compiled once per instruction set;
# instruction_set.cpp checks for exactly these before one is called. Optimised in every build type:
# without it a debug build masks a hundred times slower.
set(mask_options -O3 $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>)
set(mask_folder ${CMAKE_CURRENT_LIST_DIR})
set_source_files_properties(${mask_folder}/lanes_baseline.cpp PROPERTIES
  COMPILE_OPTIONS "${mask_options}")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(avx512_options -mavx512f -mavx512vl -mavx512bw -mavx512dq)
  set_source_files_properties(${mask_folder}/lanes_avx2.cpp PROPERTIES
    COMPILE_OPTIONS "${mask_options};-mavx2")
  set_source_files_properties(${mask_folder}/lanes_avx512.cpp PROPERTIES
    COMPILE_OPTIONS "${mask_options};${avx512_options}")
  set_source_files_properties(${mask_folder}/aes_ctr_aesni.cpp PROPERTIES
    COMPILE_OPTIONS "${mask_options};-maes;-mssse3")
  set_source_files_properties(${mask_folder}/aes_ctr_vaes256.cpp PROPERTIES
    COMPILE_OPTIONS "${mask_options};-maes;-mvaes;-mavx2")
  set_source_files_properties(${mask_folder}/aes_ctr_vaes512.cpp PROPERTIES
    COMPILE_OPTIONS "${mask_options};-maes;-mvaes;${avx512_options}")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set_source_files_properties(${mask_folder}/aes_ctr_armv8.cpp PROPERTIES
    COMPILE_OPTIONS "${mask_options};-march=armv8-a+crypto")
endif()
