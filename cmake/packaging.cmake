# The library libidefics.so, `cmake --install` and the Debian package (`cpack` in the build folder).
#
#   include/idefics/*.h, libidefics.so   the library: the public face and nothing else
#   lib/cmake/idefics, idefics.pc        find_package(idefics) -> idefics::idefics; pkg-config idefics
#   bin/idefics, man page, completions   the command line
#
# The rooms are static libraries with plain visibility, so that tests reach everything in them. The library is made of
# their objects, and packaging/libidefics.map lets only the names of include/idefics out. Its own dependencies are its own
# business: who links it needs no other library and no header but the standard ones.
if(IDEFICS_FUZZ)
  return()  # instrumented code is not for installing
endif()

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(packaging ${PROJECT_SOURCE_DIR}/packaging)
set(doc_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc/idefics)

# ---- The library ---------------------------------------------------------------------------------------------------

# Every room but the command line and what only it starts: the server and its decoding processes.
get_property(folders DIRECTORY ${PROJECT_SOURCE_DIR} PROPERTY SUBDIRECTORIES)
set(rooms "")
foreach(folder ${folders})
  if(folder MATCHES "/src/([a-z]+)$" AND NOT CMAKE_MATCH_1 STREQUAL cli AND NOT CMAKE_MATCH_1 STREQUAL server
     AND NOT CMAKE_MATCH_1 STREQUAL decoder)
    list(APPEND rooms idefics_${CMAKE_MATCH_1})
  endif()
endforeach()
list(TRANSFORM rooms REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>" OUTPUT_VARIABLE room_objects)

add_library(idefics_library SHARED ${room_objects})
add_library(idefics::idefics ALIAS idefics_library)
set_target_properties(idefics_library PROPERTIES
  OUTPUT_NAME idefics EXPORT_NAME idefics LINKER_LANGUAGE CXX
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LINK_DEPENDS ${packaging}/libidefics.map)
# The rooms again, as archives: they bring the libraries they use. Their objects are there already.
target_link_libraries(idefics_library PRIVATE ${rooms})
target_link_options(idefics_library PRIVATE
  LINKER:--version-script=${packaging}/libidefics.map LINKER:--exclude-libs,ALL LINKER:--as-needed LINKER:--gc-sections)
target_compile_features(idefics_library INTERFACE cxx_std_20)
target_include_directories(idefics_library INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

install(TARGETS idefics_library EXPORT idefics LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/idefics DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

# ---- find_package and pkg-config -----------------------------------------------------------------------------------

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/idefics)
install(EXPORT idefics NAMESPACE idefics:: FILE idefics-config.cmake DESTINATION ${config_dir})
# Before 1.0 a new minor version may change the interface.
write_basic_package_version_file(idefics-config-version.cmake COMPATIBILITY SameMinorVersion)
# The .pc file finds its prefix from its own place, so that an installed tree can be moved.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${packaging}/idefics.pc.in idefics.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/idefics-config-version.cmake DESTINATION ${config_dir})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/idefics.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# ---- The command line, with its man page and completions -----------------------------------------------------------

find_program(GZIP gzip REQUIRED)
if(TARGET idefics)
  install(TARGETS idefics RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # The program writes these pages itself.
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
  add_custom_command(
    OUTPUT ${generated}/idefics.1.gz ${generated}/idefics ${generated}/_idefics ${generated}/idefics.fish
    COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
    COMMAND idefics man > ${generated}/idefics.1
    COMMAND ${GZIP} -9nf ${generated}/idefics.1
    COMMAND idefics completion bash > ${generated}/idefics
    COMMAND idefics completion zsh > ${generated}/_idefics
    COMMAND idefics completion fish > ${generated}/idefics.fish
    DEPENDS idefics VERBATIM
    COMMENT "Writing the man page and the completions")
  add_custom_target(idefics_pages ALL DEPENDS ${generated}/idefics.1.gz)
  install(FILES ${generated}/idefics.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${generated}/idefics DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/bash-completion/completions)
  install(FILES ${generated}/idefics.fish DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/fish/vendor_completions.d)
  # Debian's zsh reads vendor-completions below /usr; everywhere else it is site-functions.
  install(CODE "
    set(zsh site-functions)
    if(CMAKE_INSTALL_PREFIX MATCHES \"/usr$\" AND EXISTS /etc/debian_version)
      set(zsh vendor-completions)
    endif()
    file(INSTALL ${generated}/_idefics
      DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATAROOTDIR}/zsh/\${zsh}\")")
endif()

# ---- A service (docs/server.md, docs/scaling.md). Nothing is started by installing it ---------------------------------

if(TARGET idefics AND CMAKE_SYSTEM_NAME STREQUAL Linux)
  install(FILES ${packaging}/systemd/idefics.service DESTINATION lib/systemd/system)
  install(FILES ${packaging}/examples/serve.toml ${packaging}/grafana/idefics.json
    ${packaging}/prometheus/idefics.rules.yml ${packaging}/haproxy/haproxy.cfg DESTINATION ${doc_dir}/examples)
endif()

# ---- Papers --------------------------------------------------------------------------------------------------------

add_custom_command(OUTPUT changelog.Debian.gz
  COMMAND ${GZIP} -9nc ${packaging}/changelog.Debian > changelog.Debian.gz
  DEPENDS ${packaging}/changelog.Debian VERBATIM)
add_custom_target(idefics_changelog ALL DEPENDS changelog.Debian.gz)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/changelog.Debian.gz ${packaging}/copyright README.md DESTINATION ${doc_dir})

# ---- The Debian package: cpack -------------------------------------------------------------------------------------

# One package for the command, the library and the headers. lintian would have three, with an address of a maintainer.

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME idefics)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The idefics.cpp project <idefics@localhost.localdomain>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "engine for Idefics3 and SmolVLM vision-language models")
set(CPACK_PACKAGE_DESCRIPTION
  "Answers questions about pictures on the CPU with checkpoints of the Idefics3
family (Idefics3-8B, SmolVLM, SmolVLM2, granite-docling), read as they are
published. The package holds the command idefics, the library libidefics and
its headers. It brings no model.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS  # drwxr-xr-x, whatever the umask
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION misc)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Policy wants the trigger; CPack knows only the scripts that call ldconfig, and writes them all the same.
set(control ${CMAKE_CURRENT_BINARY_DIR}/debian)
file(WRITE ${control}/triggers "activate-noawait ldconfig\n")
file(WRITE ${control}/shlibs "libidefics ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} idefics (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${control}/triggers ${control}/shlibs)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
