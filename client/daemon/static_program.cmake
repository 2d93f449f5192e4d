# Linked by hand: the targets that our libraries link name shared libraries.
#
# glibc warns that getaddrinfo in a static program uses its shared parts at run time. That is so for name
# services beyond files and DNS, which are built in since glibc 2.34; those a static program does without.
set(static_libraries)
foreach(library ssl crypto zstd z protobuf-lite)
  find_library(COVEY_STATIC_${library} lib${library}.a)
  mark_as_advanced(COVEY_STATIC_${library})
  if(NOT COVEY_STATIC_${library})
    message(STATUS "covey-client-static: no, there is no lib${library}.a")
    return()
  endif()
  if(library STREQUAL "protobuf-lite")
    list(APPEND static_libraries ${COVEY_STATIC_${library}})
    continue()
  endif()
  # In C, and no exception goes through it: half a megabyte of tables for unwinding is of no use.
  set(lean ${CMAKE_CURRENT_BINARY_DIR}/lean/lib${library}.a)
  add_custom_command(OUTPUT ${lean} DEPENDS ${COVEY_STATIC_${library}}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/lean
    COMMAND ${CMAKE_OBJCOPY} --remove-section=.eh_frame --remove-section=.rela.eh_frame
      --remove-section=.rel.eh_frame ${COVEY_STATIC_${library}} ${lean}
    COMMENT "Lean lib${library}.a")
  list(APPEND static_libraries ${lean})
endforeach()
add_custom_target(covey_lean_libraries DEPENDS ${static_libraries})

set(own_libraries covey_client_program covey_client_device covey_client covey_transport covey_proto
  covey_compression covey_models covey_privacy covey_strategies covey_core)
add_executable(covey-client-static EXCLUDE_FROM_ALL $<TARGET_OBJECTS:covey_client_main>)
set_target_properties(covey-client-static PROPERTIES LINKER_LANGUAGE CXX)
add_dependencies(covey-client-static ${own_libraries} covey_lean_libraries)
target_link_options(covey-client-static PRIVATE -static)
target_link_libraries(covey-client-static PRIVATE -Wl,--start-group)
foreach(library IN LISTS own_libraries)
  target_link_libraries(covey-client-static PRIVATE $<TARGET_FILE:${library}>)
  set_property(TARGET covey-client-static APPEND PROPERTY LINK_DEPENDS $<TARGET_FILE:${library}>)
endforeach()
target_link_libraries(covey-client-static PRIVATE ${static_libraries} -Wl,--end-group)
