cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    list(JOIN ARGN " " line)
    message(FATAL_ERROR "${line}\nended with ${code}:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${work})
set(prefix ${work}/prefix)
run(${CMAKE_COMMAND} --install ${build} --prefix ${prefix} --config ${config})

set(flags)
if(sanitize)
  set(flags "-fsanitize=${sanitize}")
endif()
function(build_outside source folder)
  run(${CMAKE_COMMAND} -S ${source} -B ${work}/${folder} -G ${generator}
    -D CMAKE_PREFIX_PATH=${prefix} -D CMAKE_BUILD_TYPE=${config} -D CMAKE_CXX_COMPILER=${compiler}
    -D "CMAKE_CXX_FLAGS=${flags}" ${ARGN})
  run(${CMAKE_COMMAND} --build ${work}/${folder} --config ${config})
endfunction()

# A strategy needs only what core and strategies need: the rest may be absent.
set(absent)
foreach(package Boost Protobuf SQLite3 SQLiteCpp ZLIB spdlog CLI11 Torch)
  list(APPEND absent -D CMAKE_DISABLE_FIND_PACKAGE_${package}=ON)
endforeach()
build_outside(${CMAKE_CURRENT_LIST_DIR}/strategy strategy ${absent})
build_outside(${example} example ${absent})
run(${work}/strategy/run_plugins ${work}/strategy/sign_mean.so ${work}/example/bin/fedavgm.so)

# Every library with everything in it links with what find_package(covey) found.
build_outside(${CMAKE_CURRENT_LIST_DIR}/everything everything)
run(${work}/everything/everything)
