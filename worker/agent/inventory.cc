#include "worker/agent/inventory.h"

#include <dlfcn.h>

namespace vicreg::agent {
namespace {

// The few calls of NVML (nvml.h) that are needed, looked up at run time: a CPU node has no such library.
using Device = void*;
using Init = int (*)();
using Count = int (*)(unsigned*);
using ByIndex = int (*)(unsigned, Device*);
using Uuid = int (*)(Device, char*, unsigned);

}  // namespace

std::vector<std::string> FindGpus(std::string& note) {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    note = "no NVIDIA driver here: offering CPU slots only";
    return {};
  }
  const auto init = reinterpret_cast<Init>(dlsym(library, "nvmlInit_v2"));
  const auto count = reinterpret_cast<Count>(dlsym(library, "nvmlDeviceGetCount_v2"));
  const auto by_index = reinterpret_cast<ByIndex>(dlsym(library, "nvmlDeviceGetHandleByIndex_v2"));
  const auto uuid = reinterpret_cast<Uuid>(dlsym(library, "nvmlDeviceGetUUID"));
  std::vector<std::string> gpus;
  unsigned devices = 0;
  if (init == nullptr || count == nullptr || by_index == nullptr || uuid == nullptr || init() != 0 ||
      count(&devices) != 0) {
    note = "NVML is here but does not answer: offering CPU slots only";
    return {};
  }
  for (unsigned i = 0; i < devices; ++i) {
    Device device = nullptr;
    char text[96] = {};
    if (by_index(i, &device) == 0 && uuid(device, text, sizeof text) == 0) gpus.emplace_back(text);
  }
  note = "NVML found " + std::to_string(gpus.size()) + " GPUs";
  return gpus;
}

}  // namespace vicreg::agent
