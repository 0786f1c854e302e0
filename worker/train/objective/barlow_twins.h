#pragma once

// Barlow Twins (arXiv 2103.03230, algorithm 1) over the rows of all ranks, each rank computing value and gradient of
// its own rows only:
//
//   A, B  the two views, each column centred and divided by its deviation over the global batch: sqrt(v + 1e-5), v with
//         divisor N, as batch norm does in the published code
//   K     A^T B / N
//   L     sum_i (1 - K_ii)^2  +  h * sum_{i != j} K_ij^2
//
// With K' = K off the diagonal and u_i = -2 (1 - K_ii):
//
//   gA = (2 h B K'^T + B diag u) / N         dL/dX = (gA - A diag m) / s
//   m_j = mean over rows of gA_j A_j = (2 h sum_i K'_ji^2 + u_j K_jj) / N
//
// and alike for B. The mean of gA itself is 0: columns of B sum to 0. SUM semantics, types and autocast as in vicreg.h.
// Collectives of forward: one all-gather of moments, then those of cross_correlation.h; none in backward.

#include <vector>

#include "worker/train/distributed/group.h"
#include "worker/train/objective/terms.h"

namespace vicreg::train {

// Terms: invariance sum_i (1 - K_ii)^2; covariance sum_{i != j} K_ij^2, which weighs h; variance the hinge of the
// standardised embeddings, which weighs nothing. mismatch: 1 - mean K_ii, which is inv / (v_X + v_Y) of them.
//
// views: exactly two, [n_r, D] each, as VicregLoss takes them. kAuto: by columns (kCovariance) where D <= N.
// Throws std::invalid_argument as VicregLoss does.
LossResult BarlowTwinsLoss(const std::vector<at::Tensor>& views, double redundancy, recipe::LossForm form, Group& group,
                           double grad_scale);

}  // namespace vicreg::train
