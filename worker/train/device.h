#pragma once

// What a rank computes on. No torch here.

#include <string>

namespace vicreg::train {

// kGpu: a process sees one GPU, the one of its slot (CUDA_VISIBLE_DEVICES).
enum class Device { kCpu, kGpu };

// Was this program linked for GPUs (-DVICREG_CUDA=ON)?
bool BuiltForGpus();

// Why this process cannot compute on `device`, one sentence; empty if it can.
std::string WhyNot(Device device);

// A library by the version of its headers and of what is loaded.
struct LibraryVersion {
  std::string name, built, found;
};
// Why it is not the one this program was built with, naming both versions; empty if it is.
std::string WhyNot(const LibraryVersion& library);
// The same of LibTorch and, in a build for GPUs, NCCL.
std::string WhyNotTheseLibraries();

}  // namespace vicreg::train
