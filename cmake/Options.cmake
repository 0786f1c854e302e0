# What every target of ours is compiled with.
option(VICREG_TORCH "Build the targets that need LibTorch (off for sanitizer builds: LibTorch is not instrumented)" ON)
option(VICREG_CUDA "Train on GPUs too: needs the headers of scripts/setup --cuda, no GPU and no nvcc" OFF)
set(VICREG_SANITIZE "" CACHE STRING "Sanitizers for -fsanitize=, empty for none")

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)

add_library(vicreg_options INTERFACE)
target_compile_options(vicreg_options INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers)
# GCC 12 warns of overlaps in std::string's own code, at -O3 only (GCC bug 105651).
target_compile_options(vicreg_options INTERFACE
  $<$<AND:$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)
target_include_directories(vicreg_options INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()
if(VICREG_SANITIZE)
  add_compile_options(-fsanitize=${VICREG_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${VICREG_SANITIZE})
endif()

# vicreg_library(NAME [SOURCES ...] [LIBS ...]): a static library of one folder.
function(vicreg_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC vicreg_options ${A_LIBS})
endfunction()

# vicreg_program(NAME SOURCES ... LIBS ...)
function(vicreg_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE vicreg_options ${A_LIBS})
endfunction()

# vicreg_test(NAME SOURCES ... LIBS ... [LABEL unit|process] [TIMEOUT s]): one test program, one ctest entry.
function(vicreg_test name)
  cmake_parse_arguments(A "" "LABEL;TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT A_LABEL)
    set(A_LABEL unit)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE vicreg_options ${A_LIBS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE VICREG_SOURCE_DIR="${CMAKE_SOURCE_DIR}" VICREG_BINARY_DIR="${CMAKE_BINARY_DIR}/bin")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${A_LABEL} TIMEOUT ${A_TIMEOUT})
endfunction()
