# The .deb packages, made by scripts/package: covey-client of a build with COVEY_CLIENT_ONLY, covey-server
# of one without. Their files have rules of their own, in components that a plain `cmake --install` leaves
# out, since they belong to fixed places of the system.
set(package_folder ${PROJECT_SOURCE_DIR}/packaging)
if(COVEY_CLIENT_ONLY)
  set(package client)
  set(program covey-client)
  install(FILES ${package_folder}/client/covey-client.1 DESTINATION usr/share/man/man1
    COMPONENT client EXCLUDE_FROM_ALL)
else()
  set(package server)
  set(program covey)
endif()
install(TARGETS ${program} RUNTIME DESTINATION usr/bin COMPONENT ${package} EXCLUDE_FROM_ALL)
install(FILES ${package_folder}/${package}/covey-${package}.service DESTINATION lib/systemd/system
  COMPONENT ${package} EXCLUDE_FROM_ALL)
install(FILES ${package_folder}/${package}/${package}.toml DESTINATION etc/covey
  COMPONENT ${package} EXCLUDE_FROM_ALL)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION usr/share/doc/covey-${package} RENAME copyright
  COMPONENT ${package} EXCLUDE_FROM_ALL)

string(TOUPPER ${package} upper)
set(CPACK_GENERATOR DEB)
set(CPACK_COMPONENTS_ALL ${package})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PACKAGING_INSTALL_PREFIX "/")
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CONTACT "Covey <covey@localhost>")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# dpkg-shlibdeps knows the symbols that a program needs, and not that its relocations are packed.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "adduser, libc6 (>= 2.36)")
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_${upper}_PACKAGE_NAME covey-${package})
foreach(file conffiles postinst prerm postrm)
  list(APPEND CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA ${package_folder}/${package}/${file})
endforeach()
if(COVEY_CLIENT_ONLY)
  set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Federated learning: the program of a device")
  set(CPACK_COMPONENT_CLIENT_DESCRIPTION "Trains on the data of this device for the server of a federated run, \
which gets updates and never data. Runs as a service, in the background, when \
the device's owner allows it.")
else()
  set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Federated learning: the server and its tools")
  set(CPACK_COMPONENT_SERVER_DESCRIPTION "Leads a federated run over TLS: selects devices, aggregates their updates, \
keeps what was learnt. Also makes the devices' kits, and simulates runs.")
endif()
include(CPack)
