// The one unit that sees gloo's headers: LibTorch exports ProcessGroupGloo, but its wheel has no gloo headers. Debian's
// are close enough for passing pointers around; Debian's libgloo itself must not be linked.

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "worker/train/distributed/backends.h"

namespace vicreg::train {

c10::intrusive_ptr<c10d::Backend> MakeGloo(const c10::intrusive_ptr<c10d::Store>& store,
                                           const ProcessGroupOptions& options) {
  auto gloo = c10d::ProcessGroupGloo::Options::create(options.timeout);
  gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.host));
  gloo->threads = 2;
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.world_size, gloo);
}

}  // namespace vicreg::train
