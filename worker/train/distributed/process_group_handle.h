#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "worker/train/distributed/process_group.h"

namespace vicreg::train {

struct ProcessGroupHandle {
  c10::intrusive_ptr<c10d::Backend> backend;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

}  // namespace vicreg::train
