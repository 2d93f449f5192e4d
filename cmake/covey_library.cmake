include(GNUInstallDirs)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET default)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

# Warnings and sanitizers for code of ours; generated and third-party code does not link this.
add_library(covey_options INTERFACE)
target_compile_options(covey_options INTERFACE -Wall -Wextra -Wshadow -Wconversion -Werror
  # false positives of g++ 12: on std::variant of std::vector, and on std::string's operator+
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(COVEY_SANITIZE)
  add_compile_options(-fsanitize=${COVEY_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${COVEY_SANITIZE})
endif()

find_program(COVEY_CCACHE ccache)
if(COVEY_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${COVEY_CCACHE})
endif()

# covey_library(name DEPS public... PRIVATE private...)
# Makes target covey_<name>, alias covey::<name>, of every .cpp of this folder and of its FOLDERS, with
# the headers in include/.
function(covey_library name)
  cmake_parse_arguments(ARG "" "" "DEPS;PRIVATE;FOLDERS" ${ARGN})
  list(TRANSFORM ARG_FOLDERS REPLACE "(.+)" "${CMAKE_CURRENT_SOURCE_DIR}/\\1/*.cpp" OUTPUT_VARIABLE inner)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp ${inner})
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/include/*.hpp)
  add_library(covey_${name} STATIC ${sources})
  add_library(covey::${name} ALIAS covey_${name})
  target_sources(covey_${name} PUBLIC FILE_SET HEADERS
    BASE_DIRS ${CMAKE_CURRENT_SOURCE_DIR}/include FILES ${headers})
  target_compile_features(covey_${name} PUBLIC cxx_std_20)
  target_include_directories(covey_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(covey_${name} PUBLIC ${ARG_DEPS}
    PRIVATE ${ARG_PRIVATE} $<BUILD_INTERFACE:covey_options>)
  set_target_properties(covey_${name} PROPERTIES EXPORT_NAME ${name} LINKER_LANGUAGE CXX
    VERIFY_INTERFACE_HEADER_SETS ON)
  set_property(GLOBAL APPEND PROPERTY COVEY_LIBRARIES covey_${name})
endfunction()

# covey_compile_together(target "a b c" "d e" ...)
# Compiles a.cpp, b.cpp and c.cpp as one, d.cpp and e.cpp as another: headers and templates that they
# share, most of the work, are compiled once. Their unnamed namespaces become one, so that no two of a
# group may use the same name in it; a file that is in no group is compiled alone.
function(covey_compile_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  set(group 0)
  foreach(names IN LISTS ARGN)
    math(EXPR group "${group} + 1")
    separate_arguments(names UNIX_COMMAND "${names}")
    list(TRANSFORM names APPEND .cpp)
    set_source_files_properties(${names} PROPERTIES UNITY_GROUP ${target}_${group})
  endforeach()
endfunction()

# covey_test(folder DEPS ...): one Catch2 program of every .cpp of this folder, one ctest entry per test case.
function(covey_test name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cpp)
  add_executable(covey_${name}_tests ${sources})
  target_include_directories(covey_${name}_tests PRIVATE ${PROJECT_SOURCE_DIR}/tests/support)
  target_link_libraries(covey_${name}_tests PRIVATE covey_catch_main ${ARG_DEPS} covey_options)
  set_property(GLOBAL APPEND PROPERTY COVEY_TEST_PROGRAMS covey_${name}_tests)
  catch_discover_tests(covey_${name}_tests TEST_PREFIX "${name}: " PROPERTIES TIMEOUT 600 LABELS ${name})
endfunction()
