#include "worker/train/distributed/process_group.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>
#include <vector>

#include "worker/train/distributed/backends.h"
#include "worker/train/distributed/process_group_handle.h"
#include "worker/train/distributed/relay_store.h"
#include "worker/train/error.h"

namespace vicreg::train {
namespace {

// Those whose ranks have met, for AbortCollectives: it is called while their owner is stuck.
std::mutex& live_mutex = *new std::mutex;
std::vector<std::weak_ptr<ProcessGroupHandle>>& live = *new std::vector<std::weak_ptr<ProcessGroupHandle>>;

void Remember(const std::shared_ptr<ProcessGroupHandle>& handle) {
  const std::lock_guard lock(live_mutex);
  std::erase_if(live, [](const auto& known) { return known.expired(); });
  live.push_back(handle);
}

}  // namespace

std::shared_ptr<ProcessGroupHandle> MakeProcessGroup(std::shared_ptr<KeyValueStore> store,
                                                     const ProcessGroupOptions& options) {
  if (const std::string why = WhyNot(options.device); !why.empty()) throw RankError(ExitReason::kConfig, why);
  auto relay = c10::make_intrusive<RelayStore>(std::move(store), options.timeout);
  auto handle = std::make_shared<ProcessGroupHandle>();
  handle->host = handle->backend = MakeGloo(relay, options);
  handle->group = c10::make_intrusive<c10d::ProcessGroup>(relay, options.rank, options.world_size);
  handle->group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, handle->host);
  if (options.device == Device::kGpu) {
    handle->backend = MakeNccl(c10::make_intrusive<c10d::PrefixStore>("nccl", relay), options);
    handle->group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, handle->backend);
  }
  handle->group->setDefaultBackend(options.device == Device::kGpu ? c10d::ProcessGroup::BackendType::NCCL
                                                                  : c10d::ProcessGroup::BackendType::GLOO);
  Remember(handle);
  return handle;
}

void ConfigureCollectives() {
  const std::pair<const char*, const char*> settings[] = {
      // On a timeout, or an error that NCCL finds by itself, the watchdog throws out of its thread without cleaning up
      // first, which may hang. Cleaning up without leaving (2) would let the trainer read what no peer has sent.
      {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "3"},
      {"TORCH_NCCL_BLOCKING_WAIT", "0"},
      // These ask the rendezvous store again and again, which is the coordinator's: it may be away for a while.
      {"TORCH_NCCL_ENABLE_MONITORING", "0"},
      {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
  };
  for (const auto& [name, value] : settings) {
    if (setenv(name, value, /*overwrite=*/0) != 0) throw std::runtime_error(std::string("cannot set ") + name);
  }
}

void AbortCollectives() {
  std::vector<std::shared_ptr<ProcessGroupHandle>> handles;
  {
    const std::lock_guard lock(live_mutex);
    for (const auto& known : live) {
      if (auto handle = known.lock()) handles.push_back(std::move(handle));
    }
  }
  for (const auto& handle : handles) handle->backend->abort();
}

}  // namespace vicreg::train
