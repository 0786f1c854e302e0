#pragma once

// What this process has used so far.

#include <cstdint>

namespace vicreg::bench {

// A line of /proc/self/status, such as "VmRSS:", in bytes; 0 where there is none.
std::int64_t Memory(const char* field);
// VmHWM starts again from what is resident now.
void ResetPeak();

// CPU seconds of this process so far, all threads.
double CpuSeconds();

}  // namespace vicreg::bench
