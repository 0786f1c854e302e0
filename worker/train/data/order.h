#pragma once

// Which sample stands where: a function of (seed, step), the same on every rank.

#include <cstdint>
#include <vector>

namespace vicreg::train {

// Fisher-Yates permutation of 0..samples-1 for (seed, epoch).
std::vector<std::uint32_t> EpochOrder(std::uint64_t seed, std::uint32_t epoch, std::uint32_t samples);

// Rows of the global batch that rank r of W computes: floor(r*N/W) .. floor((r+1)*N/W) - 1.
struct RowRange {
  std::int64_t begin = 0, end = 0;
};
RowRange RowsOfRank(std::int64_t batch_size, int rank, int world_size);

}  // namespace vicreg::train
