cmake_minimum_required(VERSION 3.25)
# cmake -DSOURCE_DIR= -DBUILD_DIR= -DCXX= -DNM= -P consumer_test.cmake
# Installs into an empty folder and uses the result from outside, once with find_package and once with pkg-config: the
# example must build without any other library, answer as the reference does, and see no name that is not public.
set(work ${BUILD_DIR}/consumer_test)
set(prefix ${work}/prefix)
set(model ${SOURCE_DIR}/models/tiny-cards)
file(REMOVE_RECURSE ${work})

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err)
  if(NOT code EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}\nexit code ${code}\n${out}${err}")
  endif()
  set(output "${out}" PARENT_SCOPE)
endfunction()

function(check_answer program)
  run(${program} ${model} ${model}/samples/${image} ${question})
  string(STRIP "${output}" output)
  if(NOT output STREQUAL answer)
    message(FATAL_ERROR "${program}: \"${question}\" of ${image}: wanted \"${answer}\", got \"${output}\"")
  endif()
endfunction()

# A question whose answer the reference is sure of: bfloat16 cannot change it.
file(READ ${model}/samples/expected.json expected)
set(margin 0)
set(i -1)
while(NOT margin GREATER 0.5)
  math(EXPR i "${i} + 1")
  string(JSON margin GET "${expected}" ${i} smallest_margin)
endwhile()
string(JSON image GET "${expected}" ${i} image)
string(JSON question GET "${expected}" ${i} prompt)
string(JSON answer GET "${expected}" ${i} text)
string(STRIP "${answer}" answer)

run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix})

# find_package
run(${CMAKE_COMMAND} -S ${SOURCE_DIR}/examples -B ${work}/build -G Ninja -DCMAKE_CXX_COMPILER=${CXX}
  -DCMAKE_PREFIX_PATH=${prefix})
run(${CMAKE_COMMAND} --build ${work}/build)
check_answer(${work}/build/ask_picture)
check_answer(${work}/build/own_sampler)

# Three pictures described together: one line each, in order, which the reference gives too.
set(pictures ${model}/samples/01.png ${model}/samples/02.png ${model}/samples/03.png)
run(${work}/build/batch_captions ${model} ${pictures})
string(REGEX MATCHALL "[^\n]+" lines "${output}")
foreach(picture line IN ZIP_LISTS pictures lines)
  if(NOT line MATCHES "^${picture}: The image shows .+")
    message(FATAL_ERROR "batch_captions: wanted a description of ${picture}, got \"${line}\"")
  endif()
endforeach()

run(${work}/build/hidden_states ${model} ${model}/samples/01.png "Pick up the circle.")
if(NOT output MATCHES "layer 2: [0-9]+ features of [0-9]+ tokens, norm [1-9].*layer 4: [0-9]+ features .*norm [1-9]")
  message(FATAL_ERROR "hidden_states: ${output}")
endif()
execute_process(COMMAND ${work}/build/ask_picture ${model} ${model}/none.png x RESULT_VARIABLE code ERROR_VARIABLE err)
if(NOT code EQUAL 5 OR NOT err MATCHES "cannot open")
  message(FATAL_ERROR "ask_picture without a picture: exit code ${code}, ${err}")
endif()

# pkg-config, after the installed folder was moved
file(RENAME ${prefix} ${work}/moved)
file(GLOB_RECURSE pc ${work}/moved/idefics.pc)
get_filename_component(pc_dir "${pc}" DIRECTORY)
set(ENV{PKG_CONFIG_PATH} ${pc_dir})
run(pkg-config --cflags --libs idefics)
separate_arguments(flags UNIX_COMMAND "${output}")
run(pkg-config --variable=libdir idefics)
string(STRIP "${output}" libdir)
foreach(source examples/ask_picture.cc tests/install/public_names.cc)
  get_filename_component(name ${source} NAME_WE)
  run(${CXX} -std=c++20 -Wall -Wextra -Werror -o ${work}/${name} ${SOURCE_DIR}/${source} ${flags} -Wl,-rpath,${libdir})
endforeach()
check_answer(${work}/ask_picture)
run(${work}/public_names)

# What the library shows is idefics::, and of the rooms nothing.
run(${NM} -DC --defined-only ${libdir}/libidefics.so)
string(REGEX REPLACE ";" ":" output "${output}")
string(REGEX MATCHALL "[^\n]+" lines "${output}")
foreach(line ${lines})
  if(NOT line MATCHES " (typeinfo (name )?for |vtable for )?idefics::" OR line MATCHES "::Parts::")
    message(FATAL_ERROR "libidefics.so shows a name that is not public: ${line}")
  endif()
endforeach()
