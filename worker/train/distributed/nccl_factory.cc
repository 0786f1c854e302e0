// The one unit that sees the headers of NCCL and CUDA; linked into programs that train on GPUs (-DVICREG_CUDA=ON).

#include <nccl.h>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "worker/train/distributed/backends.h"

namespace vicreg::train {

bool BuiltForGpus() { return true; }

c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store,
                                           const ProcessGroupOptions& options) {
  auto nccl = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  nccl->timeout = options.timeout;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, options.rank, options.world_size, nccl);
  // Now, not at the first collective: who cannot be reached is a failed rendezvous.
  const at::Device gpu(at::kCUDA, 0);
  backend->setBoundDeviceId(gpu);
  backend->eagerConnectSingleDevice(gpu);
  return backend;
}

NcclVersions VersionsOfNccl() {
  const auto [major, minor, patch] = c10d::getNcclVersionTuple();
  const auto text = [](int a, int b, int c) {
    return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
  };
  return {text(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH), text(major, minor, patch)};
}

}  // namespace vicreg::train
