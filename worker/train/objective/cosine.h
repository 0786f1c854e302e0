#pragma once

// What SimSiam and BYOL compare by: the cosine between predictions of one view and targets of another,
//
//   c = mean over rows and over ordered pairs k != l of cos(p_k, t_l)
//
// with targets constant (stop-gradient). SimSiam (arXiv 2011.10566, eq. 2) minimises -c, BYOL (arXiv 2006.07733, eq. 2)
// the sum over both orders of 2 - 2 cos, which is 4 - 4 c for two views and is taken to be that for any number.
//
// SUM semantics, types and autocast as in vicreg.h. A row needs no other row, so one all-gather of two numbers, for the
// value and the row count, is all there is; no collective in backward.

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

struct CosineResult {
  at::Tensor loss;  // -c, scalar with a graph; the same value on every rank
  double cosine = 0;
};

// predictions, targets: one [n_r, D] per view each, all of one shape and floating type. Lengths below 1e-8 count as
// 1e-8. Throws std::invalid_argument for fewer than 2 views, other shapes or types, D of 0, or no row over all ranks.
CosineResult NegativeCosine(const std::vector<at::Tensor>& predictions, const std::vector<at::Tensor>& targets,
                            Group& group, double grad_scale);

// Rows scaled to length sqrt(D): on the unit sphere, times the factor that makes 1 the deviation of a dimension when
// rows point everywhere (instead of 1/sqrt(D)). Differentiable; fp32 or wider.
at::Tensor Directions(const at::Tensor& z);

}  // namespace vicreg::train
