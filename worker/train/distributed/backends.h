#pragma once

// The backends of c10d, each made by the one unit that sees its library's headers. Included by those and by
// process_group.cc alone.

#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "worker/train/distributed/process_group.h"

namespace vicreg::train {

c10::intrusive_ptr<c10d::Backend> MakeGloo(const c10::intrusive_ptr<c10d::Store>& store,
                                           const ProcessGroupOptions& options);

// A program is linked with nccl_factory.cc or with cpu_only.cc, which define these two and BuiltForGpus (device.h).
//
// For the one GPU this process sees; all ranks meet here already. Never called in a build without GPUs.
c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store,
                                           const ProcessGroupOptions& options);
// As "2.28.9": of the header it was built with, and of the library that is loaded. Both empty without GPUs.
struct NcclVersions {
  std::string built, found;
};
NcclVersions VersionsOfNccl();

}  // namespace vicreg::train
