#include "worker/train/objective/covariance.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/train/objective/moments.h"

namespace vicreg::train {

std::int64_t CovarianceBlockColumns(std::int64_t views, std::int64_t d) {
  constexpr std::int64_t kElements = 1 << 22, kLeast = 64, kMost = 512;  // 16 MB of fp32
  return std::min(d, std::clamp(kElements / (views * d), kLeast, kMost));
}

std::vector<double> AddCovarianceGradient(const at::Tensor& centred, std::int64_t rows,
                                          const std::vector<double>& scale, std::vector<at::Tensor>& gradients,
                                          Group& group) {
  const std::int64_t views = centred.size(1), d = centred.size(2), step = CovarianceBlockColumns(views, d);
  at::Tensor squares = at::zeros({views}, centred.options().dtype(at::kDouble));
  for (std::int64_t start = 0; start < d; start += step) {
    const std::int64_t width = std::min(step, d - start), end = start + width;
    at::Tensor block = at::zeros({views, end, width}, centred.options());  // C[0:end, start:end] of each view
    for (std::int64_t k = 0; k < views; ++k) {
      const at::Tensor z = centred.select(1, k);
      block.select(0, k).addmm_(z.narrow(1, 0, end).t(), z.narrow(1, start, width), /*beta=*/0,
                                1.0 / static_cast<double>(rows - 1));
    }
    group.AllReduceSum(block);
    for (std::int64_t k = 0; k < views; ++k) {
      const at::Tensor z = centred.select(1, k), c = block.select(0, k);
      const at::Tensor above = c.narrow(0, 0, start), square = c.narrow(0, start, width);
      at::Tensor& gradient = gradients[static_cast<std::size_t>(k)];
      const double factor = scale[static_cast<std::size_t>(k)];
      square.diagonal().zero_();
      squares[k].add_(SumOfSquares(square)).add_(SumOfSquares(above), 2);
      if (factor == 0) continue;
      gradient.narrow(1, start, width).addmm_(z.narrow(1, 0, end), c, /*beta=*/1, factor);
      if (start > 0) gradient.narrow(1, 0, start).addmm_(z.narrow(1, start, width), above.t(), /*beta=*/1, factor);
    }
  }
  const at::Tensor sums = squares.cpu();
  return {sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + views};
}

}  // namespace vicreg::train
