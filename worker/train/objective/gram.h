#pragma once

// Covariance term by the Gram matrix G = Zc Zc^T, for D > N: |Zc^T Zc|^2 = |Zc Zc^T|^2, and each rank needs its own n_r
// rows of G. One all-gather of the centred rows of all views; then no collective but one scalar per view, and nobody
// waits for either before it is needed. Never holds more of G than n_r x 2048.

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

// Rows of a block of gathered rows, so that n_r x rows numbers are enough for the products and few: at most 4 MB of
// fp32 unless n_r > 1024.
std::int64_t GramBlockRows(std::int64_t own_rows);

// The rows of all ranks under way, [W, most_rows, V, D] of [n_r, V, D]: shorter ranks are filled with rows of zeros,
// which add nothing to any product.
Gathering StartGatherRows(const at::Tensor& centred, std::int64_t most_rows, Group& group);

// Adds scale[k] * G Zc (this rank's rows) to gradients[k], and starts the gather of this rank's share of |C|^2 (N -
// 1)^2 of each view, the diagonal included: the gradient does not need it. `centred` [n_r, V, D], `rows` what
// StartGatherRows made of it. A view of scale 0 is measured only.
Gathering AddGramGradient(const at::Tensor& centred, Gathering& rows, const std::vector<double>& scale,
                          std::vector<at::Tensor>& gradients, Group& group);

// Sums over ranks of [W, n] fp64 numbers, added in rank order, so that every rank reports the same bits.
std::vector<double> SumInRankOrder(Gathering& shares);

}  // namespace vicreg::train
