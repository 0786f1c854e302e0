// The one unit that sees gloo's headers: LibTorch exports ProcessGroupGloo, but its wheel has no gloo headers. Debian's
// are close enough for passing pointers around; Debian's libgloo itself must not be linked.

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "worker/train/distributed/process_group_handle.h"
#include "worker/train/distributed/relay_store.h"

namespace vicreg::train {

std::shared_ptr<ProcessGroupHandle> MakeProcessGroup(std::shared_ptr<KeyValueStore> store,
                                                     const ProcessGroupOptions& options) {
  auto relay = c10::make_intrusive<RelayStore>(std::move(store), options.timeout);
  auto gloo_options = c10d::ProcessGroupGloo::Options::create(options.timeout);
  gloo_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.host));
  gloo_options->threads = 2;
  auto handle = std::make_shared<ProcessGroupHandle>();
  handle->backend = c10::make_intrusive<c10d::ProcessGroupGloo>(relay, options.rank, options.world_size, gloo_options);
  handle->group = c10::make_intrusive<c10d::ProcessGroup>(relay, options.rank, options.world_size);
  handle->group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, handle->backend);
  handle->group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  return handle;
}

}  // namespace vicreg::train
