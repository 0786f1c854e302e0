# LibTorch 2.11.0 as scripts/setup unpacks it from its wheel: own imported targets, because find_package(Torch) of a CUDA
# wheel insists on nvcc. A full installation can be used instead with -DTorch_DIR=...
set(VICREG_TORCH_ROOT ${CMAKE_SOURCE_DIR}/.deps/site/torch CACHE PATH "Unpacked torch wheel (folder with lib/ and include/)")

if(NOT VICREG_TORCH)
  return()
endif()
add_library(vicreg_torch INTERFACE)
if(Torch_DIR)
  find_package(Torch 2.11 EXACT REQUIRED)
  target_link_libraries(vicreg_torch INTERFACE ${TORCH_LIBRARIES})
else()
  if(NOT EXISTS ${VICREG_TORCH_ROOT}/lib/libtorch_cpu.so)
    message(FATAL_ERROR "LibTorch is not in ${VICREG_TORCH_ROOT}: run scripts/setup, or set VICREG_TORCH_ROOT or Torch_DIR")
  endif()
  # SYSTEM: its headers warn under our flags.
  target_include_directories(vicreg_torch SYSTEM INTERFACE
    ${VICREG_TORCH_ROOT}/include ${VICREG_TORCH_ROOT}/include/torch/csrc/api/include)
  # Only these two: then no CUDA library but cudart and cupti is needed on a CPU machine.
  target_link_libraries(vicreg_torch INTERFACE
    -Wl,--push-state,--no-as-needed ${VICREG_TORCH_ROOT}/lib/libtorch_cpu.so ${VICREG_TORCH_ROOT}/lib/libc10.so -Wl,--pop-state)
  target_link_options(vicreg_torch INTERFACE -Wl,--allow-shlib-undefined -Wl,-rpath,${VICREG_TORCH_ROOT}/lib)
endif()
target_compile_definitions(vicreg_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
