#pragma once

// Inputs that the Python sides (measure.py) make with the same bits, and what this process has used.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "bench/usage.h"

namespace vicreg::bench {

// `count` numbers of mean 0 and variance 1 from place `begin` of one fixed sequence, in fp64. Uniform: SplitMix64 of
// the place.
at::Tensor Noise(std::uint64_t begin, std::int64_t count);

}  // namespace vicreg::bench
