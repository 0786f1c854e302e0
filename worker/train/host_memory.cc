#include "worker/train/host_memory.h"

#include <malloc.h>

#include <iostream>

namespace vicreg::train {
namespace {

constexpr int kGrowBy = 64 << 20;  // bytes taken from the system at once beyond what is asked for

}  // namespace

void KeepFreedMemory() {
  const bool kept =
      mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, -1) == 1 && mallopt(M_TOP_PAD, kGrowBy) == 1;
  if (!kept) std::cerr << "mallopt: refused; steps will be slower, results are the same\n";
}

}  // namespace vicreg::train
