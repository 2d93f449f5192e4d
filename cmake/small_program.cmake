# What makes covey-client small, in builds with COVEY_CLIENT_ONLY.
include(CheckLinkerFlag)

# What nothing calls is left out.
add_compile_options(-ffunction-sections -fdata-sections)
add_link_options(-Wl,--gc-sections)
# Assertions name their file: not this machine's folders.
add_compile_options(-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=)
# Relative relocations in a tenth of their space (glibc 2.36; binutils 2.38).
check_linker_flag(CXX -Wl,-z,pack-relative-relocs COVEY_HAS_PACKED_RELOCATIONS)
if(COVEY_HAS_PACKED_RELOCATIONS)
  add_link_options(-Wl,-z,pack-relative-relocs)
endif()

# A tenth of the program, for a link of a minute: not where every test program would take that.
if(COVEY_TESTS)
  set(whole_program OFF)
else()
  set(whole_program ON)
endif()
option(COVEY_LTO "Optimise the device's program as a whole" ${whole_program})
if(COVEY_LTO)
  set(CMAKE_POLICY_DEFAULT_CMP0069 NEW)
  set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ON)
  # The libraries are of use to other programs as well, whatever these are linked with.
  set(CMAKE_CXX_COMPILE_OPTIONS_IPO -flto=auto -ffat-lto-objects)
  add_link_options(-flto-partition=one)
endif()

# For the end of the top CMakeLists.txt's list of folders.
function(covey_tune_sources)
  # Kernels are compiled for one instruction set and one way of rounding each, which the optimiser of the
  # whole would mix; and nothing in them throws, so nothing is to be unwound.
  foreach(library models privacy strategies)
    get_target_property(sources covey_${library} SOURCES)
    get_target_property(folder covey_${library} SOURCE_DIR)
    foreach(source IN LISTS sources)
      if(source MATCHES "/(kernels_[^/]*|aes_ctr_[^/]*|lanes_[^/]*|[^/]*_kernels)\\.cpp$")
        set_property(SOURCE ${source} DIRECTORY ${folder} APPEND PROPERTY COMPILE_OPTIONS
          -fno-lto -fno-exceptions -fno-asynchronous-unwind-tables)
      endif()
    endforeach()
  endforeach()
  # Compressed once a round, behind minutes of training: -O3 would be twice the code of -O2.
  get_target_property(sources covey_compression SOURCES)
  get_target_property(folder covey_compression SOURCE_DIR)
  foreach(source IN LISTS sources)
    if(source MATCHES "\\.cpp$")
      set_property(SOURCE ${source} DIRECTORY ${folder} APPEND PROPERTY COMPILE_OPTIONS -O2)
    endif()
  endforeach()
endfunction()
