#pragma once

// What every program of ours under bench/ needs: inputs that the Python sides (measure.py) make with the same bits, and
// what this process has used.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vicreg::bench {

// `count` numbers of mean 0 and variance 1 from place `begin` of one fixed sequence, in fp64. Uniform: SplitMix64 of
// the place.
at::Tensor Noise(std::uint64_t begin, std::int64_t count);

// A line of /proc/self/status, such as "VmRSS:", in bytes; 0 where there is none.
std::int64_t Memory(const char* field);
// VmHWM starts again from what is resident now.
void ResetPeak();

// CPU seconds of this process so far, all threads.
double CpuSeconds();

}  // namespace vicreg::bench
