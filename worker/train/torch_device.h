#pragma once

// Where a rank's tensors live: parameters, their state, batches and all that is computed from them. What the host reads
// comes back by one explicit copy (.cpu(), .item()).

#include <ATen/core/Tensor.h>

#include "worker/train/device.h"

namespace vicreg::train {

// A process sees one GPU, so it is always the first.
inline at::Device TorchDevice(Device device) {
  return device == Device::kGpu ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

}  // namespace vicreg::train
