# models/torch, where libtorch is found and wanted (COVEY_TORCH). Nothing else names libtorch.
if(NOT COVEY_TORCH STREQUAL "OFF")
  # Its configuration reports what it finds, QUIET or not.
  set(CMAKE_MESSAGE_LOG_LEVEL NOTICE)
  find_package(Torch QUIET)
  unset(CMAKE_MESSAGE_LOG_LEVEL)
  if(NOT Torch_FOUND AND NOT COVEY_TORCH STREQUAL "AUTO")
    message(FATAL_ERROR "COVEY_TORCH is ${COVEY_TORCH}, but there is no libtorch: "
      "scripts/install_dependencies --torch, or CMAKE_PREFIX_PATH")
  endif()
endif()
if(Torch_FOUND)
  message(STATUS "TorchScript models: yes, libtorch ${Torch_VERSION}")
  add_subdirectory(${PROJECT_SOURCE_DIR}/models/torch)
elseif(COVEY_TORCH STREQUAL "AUTO")
  message(STATUS "TorchScript models: no, libtorch is not installed (scripts/install_dependencies --torch)")
else()
  message(STATUS "TorchScript models: no, COVEY_TORCH is ${COVEY_TORCH}")
endif()
