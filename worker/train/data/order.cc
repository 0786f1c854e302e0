#include "worker/train/data/order.h"

#include <numeric>
#include <utility>

#include "worker/train/data/draw.h"

namespace vicreg::train {

std::vector<std::uint32_t> EpochOrder(std::uint64_t seed, std::uint32_t epoch, std::uint32_t samples) {
  std::vector<std::uint32_t> order(samples);
  std::iota(order.begin(), order.end(), 0);
  for (std::uint32_t i = samples; i > 1; --i) {
    std::swap(order[i - 1], order[Below({seed, epoch, i, 0}, Operation::kOrder, 0, i)]);
  }
  return order;
}

RowRange RowsOfRank(std::int64_t batch_size, int rank, int world_size) {
  return {rank * batch_size / world_size, (rank + 1) * batch_size / world_size};
}

}  // namespace vicreg::train
