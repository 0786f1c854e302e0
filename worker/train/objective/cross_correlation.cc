#include "worker/train/objective/cross_correlation.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/train/objective/covariance.h"
#include "worker/train/objective/gram.h"

namespace vicreg::train {
namespace {

CrossCorrelation Zeros(const at::Tensor& standardised) {
  const std::int64_t n = standardised.size(0), d = standardised.size(2);
  const auto wide = standardised.options().dtype(at::kDouble);
  return {at::zeros({d}, wide),
          at::zeros({2, d}, wide),
          {at::zeros({n, d}, standardised.options()), at::zeros({n, d}, standardised.options())}};
}

// Column by column: sum over rows of x * y, in fp64.
at::Tensor ColumnProducts(const at::Tensor& x, const at::Tensor& y) { return (x * y).sum(0, false, at::kDouble); }

}  // namespace

CrossCorrelation CorrelateByColumns(const at::Tensor& standardised, std::int64_t rows, Group& group) {
  const at::Tensor a = standardised.select(1, 0), b = standardised.select(1, 1);
  const std::int64_t d = a.size(1), step = CovarianceBlockColumns(1, d);
  CrossCorrelation out = Zeros(standardised);
  for (std::int64_t start = 0; start < d; start += step) {
    const std::int64_t width = std::min(step, d - start);
    const at::Tensor own_b = b.narrow(1, start, width);
    at::Tensor block = at::zeros({d, width}, standardised.options());  // K[:, start:start + width]
    block.addmm_(a.t(), own_b, /*beta=*/0, 1.0 / static_cast<double>(rows));
    group.AllReduceSum(block);
    at::Tensor diagonal = block.narrow(0, start, width).diagonal();
    out.diagonal.narrow(0, start, width).copy_(diagonal);
    diagonal.zero_();
    const at::Tensor squares = block.square();
    out.squares[0].add_(squares.sum(1, false, at::kDouble));
    out.squares[1].narrow(0, start, width).copy_(squares.sum(0, false, at::kDouble));
    out.products[0].addmm_(own_b, block.t());
    out.products[1].narrow(1, start, width).addmm_(a, block);
  }
  return out;
}

CrossCorrelation CorrelateByGram(const at::Tensor& standardised, std::int64_t rows, std::int64_t most_rows,
                                 Group& group) {
  const std::int64_t own_rows = standardised.size(0), d = standardised.size(2);
  const double scale = 1.0 / static_cast<double>(rows);
  CrossCorrelation out = Zeros(standardised);
  {
    const at::Tensor gathered = StartGatherRows(standardised, most_rows, group).Wait().flatten(0, 1);
    const std::int64_t step = GramBlockRows(own_rows);
    for (std::int64_t start = 0; start < gathered.size(0) && own_rows > 0; start += step) {
      const at::Tensor block = gathered.narrow(0, start, std::min(step, gathered.size(0) - start));
      for (const int of : {0, 1}) {
        const int other = 1 - of;
        const at::Tensor g = standardised.select(1, other).mm(block.select(1, other).t());
        out.products[of].addmm_(g, block.select(1, of), /*beta=*/1, scale);
      }
    }
  }
  // What a rank knows of its own rows: A*B is N K_jj; A * (B K^T) is N times the squares of K's row, and alike for B.
  const at::Tensor a = standardised.select(1, 0), b = standardised.select(1, 1);
  const at::Tensor own =
      at::stack({ColumnProducts(a, b), ColumnProducts(a, out.products[0]), ColumnProducts(b, out.products[1])});
  const at::Tensor gathered = group.AllGather(own);
  at::Tensor sums = at::zeros({3, d}, own.options());
  for (std::int64_t r = 0; r < group.size(); ++r) sums.add_(gathered[r]);  // in rank order: the same bits on every rank
  sums.mul_(scale);
  out.diagonal = sums[0];
  out.squares = sums.narrow(0, 1, 2) - out.diagonal.square();
  const at::Tensor diagonal = out.diagonal.to(standardised.scalar_type());
  out.products[0].addcmul_(b, diagonal, -1);
  out.products[1].addcmul_(a, diagonal, -1);
  return out;
}

}  // namespace vicreg::train
