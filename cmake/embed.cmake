# idefics_embed(target output namespace FILES…)
# Puts files into the program. <output> is "room/name": "room/name.h", to be included so, declares in <namespace> for each
# file `extern const std::string_view <its name, with "." and "-" as "_">;`, and the target gets a source with the bytes.
set(IDEFICS_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})

function(idefics_embed target output namespace)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/embedded)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE files)
  add_custom_command(
    OUTPUT ${folder}/${output}.h ${folder}/${output}.cc
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${folder}/${output} -DNAMESPACE=${namespace} "-DFILES=${files}"
      -P ${IDEFICS_EMBED_SCRIPT}
    DEPENDS ${files} ${IDEFICS_EMBED_SCRIPT} VERBATIM
    COMMENT "Embedding ${output}")
  target_sources(${target} PRIVATE ${folder}/${output}.h ${folder}/${output}.cc)
  target_include_directories(${target} PRIVATE ${folder})
endfunction()

if(CMAKE_SCRIPT_MODE_FILE)
  get_filename_component(base ${OUTPUT} NAME)
  set(header "// Made by cmake/embed.cmake.\n#pragma once\n\n#include <string_view>\n\nnamespace ${NAMESPACE} {\n")
  set(source "// Made by cmake/embed.cmake.\n#include \"${base}.h\"\n\nnamespace ${NAMESPACE} {\n")
  foreach(file ${FILES})
    get_filename_component(name ${file} NAME)
    string(REGEX REPLACE "[.-]" "_" name ${name})
    file(READ ${file} hex HEX)
    string(LENGTH "${hex}" length)
    math(EXPR length "${length} / 2")
    string(REGEX REPLACE "(..)" "\\\\x\\1" bytes "${hex}")
    # Lines of some length: compilers and people dislike one of 100 kB.
    string(REGEX REPLACE "(................................................................................................................)" "\\1\"\n  \"" bytes "${bytes}")
    string(APPEND header "extern const std::string_view ${name};\n")
    string(APPEND source "extern const std::string_view ${name}(\n  \"${bytes}\", ${length});\n")
  endforeach()
  file(WRITE ${OUTPUT}.h "${header}}  // namespace ${NAMESPACE}\n")
  file(WRITE ${OUTPUT}.cc "${source}}  // namespace ${NAMESPACE}\n")
endif()
