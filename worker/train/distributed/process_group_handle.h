#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "worker/train/distributed/process_group.h"

namespace vicreg::train {

struct ProcessGroupHandle {
  c10::intrusive_ptr<c10d::Backend> backend;  // of the device
  c10::intrusive_ptr<c10d::Backend> host;     // of the host's decisions; on a CPU the same one
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

}  // namespace vicreg::train
