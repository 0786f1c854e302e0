#include "bench/measure.h"

#include <ATen/ATen.h>

#include <cmath>
#include <ctime>
#include <fstream>
#include <string>

namespace vicreg::bench {
namespace {

double Hashed(std::uint64_t index) {
  std::uint64_t z = (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) / 9007199254740992.0;
}

}  // namespace

at::Tensor Noise(std::uint64_t begin, std::int64_t count) {
  at::Tensor t = at::empty({count}, at::kDouble);
  double* const p = t.data_ptr<double>();
  for (std::int64_t i = 0; i < count; ++i)
    p[i] = (Hashed(begin + static_cast<std::uint64_t>(i)) - 0.5) * std::sqrt(12.0);
  return t;
}

std::int64_t Memory(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(std::string(field).size() + 1)) * 1024;
  }
  return 0;
}

void ResetPeak() { std::ofstream("/proc/self/clear_refs") << 5; }

double CpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace vicreg::bench
