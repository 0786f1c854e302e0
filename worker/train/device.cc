#include "worker/train/device.h"

#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/version.h>

#include "worker/train/distributed/backends.h"

namespace vicreg::train {
namespace {

// Of the libraries that are loaded; empty if they do not say.
std::string TorchFound() {
  const std::string config = at::show_config(), key = "TORCH_VERSION=";
  const std::size_t at = config.find(key);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + key.size();
  return config.substr(begin, config.find_first_of(", \n", begin) - begin);
}

}  // namespace

std::string WhyNot(Device device) {
  if (device == Device::kCpu) return "";
  if (!BuiltForGpus()) return "this build trains on CPUs only: write device: cpu, or build with -DVICREG_CUDA=ON";
  if (at::detail::getCUDAHooks().deviceCount() > 0) return "";
  return "this process sees no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES, or write device: cpu";
}

std::string WhyNot(const LibraryVersion& library) {
  if (library.built == library.found) return "";
  return "this program was built with " + library.name + " " + library.built + " and runs with " +
         (library.found.empty() ? "an unknown version" : library.found) + ": give it the version it was built with";
}

std::string WhyNotTheseLibraries() {
  const NcclVersions nccl = VersionsOfNccl();
  const std::string torch = WhyNot(LibraryVersion{"LibTorch", TORCH_VERSION, TorchFound()});
  return torch.empty() ? WhyNot(LibraryVersion{"NCCL", nccl.built, nccl.found}) : torch;
}

}  // namespace vicreg::train
