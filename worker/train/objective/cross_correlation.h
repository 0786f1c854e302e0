#pragma once

// K = A^T B / N of two standardised views, never held whole, and what Barlow Twins needs of it: its diagonal, and the
// squares and products of what stands off the diagonal, K'.

#include <ATen/core/Tensor.h>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

struct CrossCorrelation {
  at::Tensor diagonal;  // [D] fp64: K_jj
  // [2, D] fp64: sum over i of K'_ji^2 (rows, of A's dimensions), and of K'_ij^2 (columns, of B's).
  at::Tensor squares;
  at::Tensor products[2];  // [n_r, D] of this rank: B K'^T and A K'
};

// `standardised` [n_r, 2, D]: A and B of this rank; rows: N.
//
// By columns, for D <= N: blocks of K's columns are reduced over the ranks, one all-reduce each.
CrossCorrelation CorrelateByColumns(const at::Tensor& standardised, std::int64_t rows, Group& group);

// By Gram matrices, for D > N: B K^T = (B B^T) A / N and A K = (A A^T) B / N, each rank its own n_r rows of both. One
// all-gather of the rows and one of 3 D numbers. most_rows: n_r of the largest rank.
CrossCorrelation CorrelateByGram(const at::Tensor& standardised, std::int64_t rows, std::int64_t most_rows,
                                 Group& group);

}  // namespace vicreg::train
