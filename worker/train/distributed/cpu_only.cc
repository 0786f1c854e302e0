// In the place of nccl_factory.cc in a program that trains on CPUs only.

#include <stdexcept>

#include "worker/train/distributed/backends.h"

namespace vicreg::train {

bool BuiltForGpus() { return false; }

c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>&, const ProcessGroupOptions&) {
  throw std::logic_error("a build without GPUs was asked for NCCL");  // MakeProcessGroup refuses before
}

NcclVersions VersionsOfNccl() { return {}; }

}  // namespace vicreg::train
