#pragma once

// A device that no machine lacks, for tests of where tensors lie: its memory and its arithmetic are the CPU's, yet it
// refuses what a GPU refuses. An operation that is given a tensor of it and one of the CPU throws, unless the latter is
// a scalar or the operation is a copy. Registered by the first call of StrictDevice(); one per process.

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace vicreg::train {

at::Device StrictDevice();

// Operations it ran since the process started, to show that it was in use.
long StrictOperations();

// Blocks of its host memory, from which copies to it need no detour, that are given out now.
long StrictHostBlocks();

}  // namespace vicreg::train
