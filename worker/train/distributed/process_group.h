#pragma once

// The one place that knows which collective library a device uses: Gloo for CPU tensors, NCCL for GPU tensors.
//
// A rank on a GPU has both: NCCL for what is on the GPU, and a Gloo group beside it for what the host decides (does
// anybody wish to stop?), so that asking does not wait for the GPU.

#include <chrono>
#include <memory>
#include <string>

#include "worker/train/device.h"
#include "worker/train/distributed/key_value_store.h"

namespace vicreg::train {

// A backend and the c10d::ProcessGroup around it (which the Reducer wants). Pointers inside, so that users need few
// headers.
struct ProcessGroupHandle;

struct ProcessGroupOptions {
  int rank = 0, world_size = 1;
  std::chrono::milliseconds timeout{60000};  // of the rendezvous and of each collective
  std::string host = "127.0.0.1";            // address this rank listens on for its peers
  Device device = Device::kCpu;              // kGpu: the one GPU this process sees
};

// Throws when the rendezvous fails or times out, and RankError (kConfig) for a GPU that this build or machine has not.
// Gloo: a collective that fails or takes longer than the timeout throws. NCCL: its watchdog ends the process by
// std::terminate then, as the GPU may never come back.
std::shared_ptr<ProcessGroupHandle> MakeProcessGroup(std::shared_ptr<KeyValueStore> store,
                                                     const ProcessGroupOptions& options);

// Settings that NCCL's process group reads from the environment. Call once, before the first thread.
void ConfigureCollectives();

// Aborts the collectives of every group of this process, from any thread: on a GPU the kernels that wait for a peer
// end. Gloo's end with the process. May hang, as NCCL's own abort may: call AbortAndExit (worker/rank/leave.h) instead.
void AbortCollectives();

}  // namespace vicreg::train
