#pragma once

// Covariance term by C = Zc^T Zc / (N - 1), for D <= N: rows are not gathered, C is reduced over the ranks. C is
// symmetric: only its upper triangle is computed, reduced and held, a block of columns of all views at a time.

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

// Adds scale[k] * Zc (C - diag C) (this rank's rows) to gradients[k] and returns |C - diag C|^2 of each view.
// `centred` [n_r, V, D]; rows: N. A view of scale 0 is measured only.
std::vector<double> AddCovarianceGradient(const at::Tensor& centred, std::int64_t rows,
                                          const std::vector<double>& scale, std::vector<at::Tensor>& gradients,
                                          Group& group);

// Columns of C in one block; one all-reduce each.
std::int64_t CovarianceBlockColumns(std::int64_t views, std::int64_t d);

}  // namespace vicreg::train
