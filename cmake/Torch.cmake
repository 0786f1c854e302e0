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
  # One word each, which CMake does not tear apart. Only these two: then no CUDA library but cudart and cupti is needed on a CPU machine.
  target_link_libraries(vicreg_torch INTERFACE
    -Wl,--push-state,--no-as-needed,${VICREG_TORCH_ROOT}/lib/libtorch_cpu.so,${VICREG_TORCH_ROOT}/lib/libc10.so,--pop-state)
  target_link_options(vicreg_torch INTERFACE -Wl,--allow-shlib-undefined -Wl,-rpath,${VICREG_TORCH_ROOT}/lib)
endif()
target_compile_definitions(vicreg_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)

# What the units that see CUDA's and NCCL's headers are compiled with, and what a program that trains on GPUs links.
set(VICREG_CUDA_ROOT ${CMAKE_SOURCE_DIR}/.deps/cuda CACHE PATH "Headers of NCCL and CUDA (scripts/setup --cuda)")
if(EXISTS ${VICREG_CUDA_ROOT}/nccl/include/nccl.h)
  add_library(vicreg_torch_cuda INTERFACE)
  target_link_libraries(vicreg_torch_cuda INTERFACE vicreg_torch)
  target_compile_definitions(vicreg_torch_cuda INTERFACE USE_CUDA USE_C10D_NCCL)
  target_include_directories(vicreg_torch_cuda SYSTEM INTERFACE
    ${VICREG_CUDA_ROOT}/nccl/include ${VICREG_CUDA_ROOT}/cu13/include ${VICREG_TORCH_ROOT}/../nvidia/cu13/include
    ${CMAKE_SOURCE_DIR}/worker/train/distributed/opaque)
  if(NOT Torch_DIR)
    # All its kernels register themselves when it is loaded: nothing of it is called by name but NCCL's process group.
    target_link_libraries(vicreg_torch_cuda INTERFACE
      -Wl,--push-state,--no-as-needed,${VICREG_TORCH_ROOT}/lib/libtorch_cuda.so,${VICREG_TORCH_ROOT}/lib/libc10_cuda.so,--pop-state)
  endif()
elseif(VICREG_CUDA)
  message(FATAL_ERROR "CUDA's and NCCL's headers are not in ${VICREG_CUDA_ROOT}: run scripts/setup --cuda")
endif()

# vicreg_gpu_twin(NAME SOURCES ... LIBS ...): in a build for CPUs, bin/cuda/NAME: the program as a build for GPUs links it, so
# that every build with the headers at hand proves that it links. A build for GPUs has no need of it.
function(vicreg_gpu_twin name)
  if(VICREG_CUDA OR NOT TARGET vicreg_torch_cuda)
    return()
  endif()
  vicreg_program(${name}-cuda ${ARGN})
  set_target_properties(${name}-cuda PROPERTIES VICREG_ON_GPUS ON OUTPUT_NAME ${name}
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/cuda)
endfunction()
