# idefics_room(name SOURCES … [TESTS …] [LEVEL_TESTS …] [DEPS …] [LIBS …] [PRIVATE_LIBS …])
#
# One list per room makes three things:
#   - the target idefics_<name>, a static library of SOURCES that may use the rooms in DEPS and the libraries in LIBS;
#   - one test program per file in TESTS (run once) and LEVEL_TESTS (run once at every CPU level);
#   - the test layers.<name>, which fails when an #include leaves the room for a room that is not in DEPS.
# A file includes another as "room/file.h"; the public headers as "idefics/file.h".

set(IDEFICS_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlapping copies in std::string concatenations that are none (GCC bug 105651).
  list(APPEND IDEFICS_WARNINGS -Wno-restrict)
endif()
set(IDEFICS_LEVELS ref avx2 avx512 amx)

function(idefics_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE ${IDEFICS_WARNINGS})
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
  if(IDEFICS_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${IDEFICS_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${IDEFICS_SANITIZE})
  endif()
  if(IDEFICS_FUZZ)
    target_compile_options(${target} PUBLIC -fsanitize=fuzzer-no-link)
  endif()
endfunction()

function(idefics_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;TESTS;LEVEL_TESTS;DEPS;LIBS;PRIVATE_LIBS" ${ARGN})
  set(target idefics_${name})
  add_library(${target} STATIC ${ARG_SOURCES})
  idefics_compile_options(${target})
  list(TRANSFORM ARG_DEPS PREPEND idefics_ OUTPUT_VARIABLE dep_targets)
  target_link_libraries(${target} PUBLIC ${dep_targets} ${ARG_LIBS} PRIVATE ${ARG_PRIVATE_LIBS})
  if(NOT IDEFICS_TESTS)
    return()
  endif()
  add_test(NAME layers.${name} COMMAND ${CMAKE_COMMAND} -DROOM=${name} "-DDEPS=${ARG_DEPS}"
    -DDIR=${CMAKE_CURRENT_SOURCE_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/check_layers.cmake)
  foreach(source ${ARG_TESTS})
    get_filename_component(test ${source} NAME_WE)
    idefics_test(${name}.${test} SOURCES ${source} DEPS ${name})
  endforeach()
  foreach(source ${ARG_LEVEL_TESTS})
    get_filename_component(test ${source} NAME_WE)
    idefics_test(${name}.${test} SOURCES ${source} DEPS ${name} EACH_LEVEL)
  endforeach()
endfunction()

# idefics_test(name SOURCES … [DEPS …] [LIBS …] [EACH_LEVEL] [TIMEOUT seconds])
# One test program. EACH_LEVEL: run as name.ref, name.avx2, name.avx512, name.amx with IDEFICS_KERNELS set; the program exits
# with 77 ("skipped", never "passed") where the CPU lacks the level.
function(idefics_test name)
  cmake_parse_arguments(ARG "EACH_LEVEL" "TIMEOUT" "SOURCES;DEPS;LIBS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(IDEFICS_SANITIZE)
    math(EXPR ARG_TIMEOUT "6 * ${ARG_TIMEOUT}")  # the engine's tests at level ref take minutes under the thread sanitizer
  endif()
  string(REPLACE "." "_" target ${name})
  add_executable(${target} ${ARG_SOURCES})
  idefics_compile_options(${target})
  list(TRANSFORM ARG_DEPS PREPEND idefics_ OUTPUT_VARIABLE dep_targets)
  target_link_libraries(${target} PRIVATE ${dep_targets} ${ARG_LIBS} GTest::gtest idefics_test_main)
  target_compile_definitions(${target} PRIVATE
    IDEFICS_SOURCE_DIR="${PROJECT_SOURCE_DIR}" IDEFICS_GOLDENS="${PROJECT_SOURCE_DIR}/tests/golden/data")
  if(ARG_EACH_LEVEL)
    foreach(level ${IDEFICS_LEVELS})
      add_test(NAME ${name}.${level} COMMAND ${target})
      set_tests_properties(${name}.${level} PROPERTIES
        ENVIRONMENT IDEFICS_KERNELS=${level} SKIP_RETURN_CODE 77 TIMEOUT ${ARG_TIMEOUT} LABELS ${level})
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${target})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
  endif()
endfunction()

# idefics_fuzz(name SOURCES … DEPS …)
# The same entry point LLVMFuzzerTestOneInput twice: with IDEFICS_FUZZ a libFuzzer program, and always a test that
# replays the corpus tests/fuzz/corpus/<name>.
function(idefics_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  list(TRANSFORM ARG_DEPS PREPEND idefics_ OUTPUT_VARIABLE dep_targets)
  if(IDEFICS_FUZZ)
    add_executable(fuzz_${name} ${ARG_SOURCES})
    idefics_compile_options(fuzz_${name})
    target_link_libraries(fuzz_${name} PRIVATE ${dep_targets} ${ARG_LIBS})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(replay_${name} ${ARG_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    idefics_compile_options(replay_${name})
    target_link_libraries(replay_${name} PRIVATE ${dep_targets} ${ARG_LIBS})
    add_test(NAME fuzz.replay.${name} COMMAND replay_${name} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(fuzz.replay.${name} PROPERTIES TIMEOUT 300)
  endif()
endfunction()
