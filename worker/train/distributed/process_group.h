#pragma once

// The one place that knows which collective library a device uses.

#include <chrono>
#include <memory>
#include <string>

#include "worker/train/distributed/key_value_store.h"

namespace c10d {
class Backend;
class ProcessGroup;
}  // namespace c10d
namespace c10 {
template <class T, class N>
class intrusive_ptr;
}

namespace vicreg::train {

// A backend and the c10d::ProcessGroup around it (which the Reducer wants). Pointers inside, so that users need few
// headers.
struct ProcessGroupHandle;

struct ProcessGroupOptions {
  int rank = 0, world_size = 1;
  std::chrono::milliseconds timeout{60000};  // of the rendezvous and of each collective
  std::string host = "127.0.0.1";            // address this rank listens on for its peers
};

// Gloo for CPU tensors. Throws when the rendezvous fails or times out.
std::shared_ptr<ProcessGroupHandle> MakeProcessGroup(std::shared_ptr<KeyValueStore> store,
                                                     const ProcessGroupOptions& options);

}  // namespace vicreg::train
