#include "worker/train/objective/gram.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/train/objective/moments.h"

namespace vicreg::train {
std::int64_t GramBlockRows(std::int64_t own_rows) {
  constexpr std::int64_t kElements = 1 << 20, kLeast = 1024, kMost = 2048;
  return std::clamp(kElements / std::max<std::int64_t>(own_rows, 1), kLeast, kMost);
}

Gathering StartGatherRows(const at::Tensor& centred, std::int64_t most_rows, Group& group) {
  at::Tensor mine = centred;
  if (centred.size(0) < most_rows) {
    mine = at::zeros({most_rows, centred.size(1), centred.size(2)}, centred.options());
    mine.narrow(0, 0, centred.size(0)).copy_(centred);
  }
  return group.StartAllGather(mine);
}

Gathering AddGramGradient(const at::Tensor& centred, Gathering& rows, const std::vector<double>& scale,
                          std::vector<at::Tensor>& gradients, Group& group) {
  const auto v = static_cast<std::int64_t>(gradients.size());
  const at::Tensor gathered = rows.Wait().flatten(0, 1);
  const std::int64_t own_rows = centred.size(0), all_rows = gathered.size(0), step = GramBlockRows(own_rows);
  at::Tensor squares = at::zeros({v}, centred.options().dtype(at::kDouble));
  for (std::int64_t k = 0; k < v && own_rows > 0; ++k) {
    // Views lie side by side in a row, so a block of one view is a matrix with a longer stride: no copy.
    const at::Tensor own = centred.select(1, k), others = gathered.select(1, k);
    for (std::int64_t start = 0; start < all_rows; start += step) {
      const at::Tensor block = others.narrow(0, start, std::min(step, all_rows - start));
      const at::Tensor g = own.mm(block.t());
      squares[k].add_(SumOfSquares(g));
      if (scale[static_cast<std::size_t>(k)] != 0)
        gradients[static_cast<std::size_t>(k)].addmm_(g, block, /*beta=*/1, scale[static_cast<std::size_t>(k)]);
    }
  }
  return group.StartAllGather(squares);
}

std::vector<double> SumInRankOrder(Gathering& shares) {
  const at::Tensor numbers = shares.Wait().cpu();
  const auto number = numbers.accessor<double, 2>();
  std::vector<double> sums(static_cast<std::size_t>(numbers.size(1)), 0);
  for (std::int64_t r = 0; r < numbers.size(0); ++r) {
    for (std::int64_t k = 0; k < numbers.size(1); ++k) sums[static_cast<std::size_t>(k)] += number[r][k];
  }
  return sums;
}

}  // namespace vicreg::train
