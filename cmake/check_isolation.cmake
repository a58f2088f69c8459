cmake_minimum_required(VERSION 3.25)
# cmake -DNM=program -DLIBRARY=file -DOBJECTS=regex -DTABLES=regex -DCOUNT=n -P check_isolation.cmake
# Fails when an object file of a CPU level, one whose name matches OBJECTS, defines a symbol that others can see besides its
# tables, COUNT in all whose names match TABLES: the linker could then take that level's copy of a shared function for
# everybody, and an older CPU would meet instructions it lacks.
execute_process(COMMAND ${NM} -C --defined-only --extern-only ${LIBRARY} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" lines "${text}")
set(object "")
set(tables 0)
foreach(line IN LISTS lines)
  if(line MATCHES "\\.o:$")
    string(REGEX MATCH "${OBJECTS}" object "${line}")
  elseif(NOT object STREQUAL "" AND NOT line STREQUAL "" AND NOT line MATCHES " __odr_asan")
    if(NOT line MATCHES " [DR] idefics::(${TABLES})$")
      message(FATAL_ERROR "${object}: defines more than its table: ${line}")
    endif()
    math(EXPR tables "${tables} + 1")
  endif()
endforeach()
if(NOT tables EQUAL COUNT)
  message(FATAL_ERROR "found ${tables} tables of CPU levels in ${LIBRARY}, wanted ${COUNT}")
endif()
