#include "bench/measure.h"

#include <ATen/ATen.h>

#include <cmath>

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

}  // namespace vicreg::bench
