#pragma once

// Column statistics over the rows of all ranks, and the own rows less the global mean.
//
// Each rank sends the mean and the sum of squared distances to it of its own rows, never E[z^2] - E[z]^2. They are
// merged in rank order in fp64 (Chan's update), so that every rank holds the same bits; an all-reduce does not promise
// that. Trap: an fp32 mean is itself 6e-8 * |mean| off, too much where the mean is 1000 standard deviations. So rows
// are stored less their rank's rounded mean, and what that left over is measured on these small numbers.

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

struct Moments {
  std::int64_t rows = 0, most_rows = 0;  // over all ranks; of the largest rank
  double own_sums = 0;                   // sum over ranks of what each passed, in rank order
  at::Tensor variance;                   // [V, D], unbiased, fp64; not finite where a column holds a NaN or an infinity
  at::Tensor centred;                    // [n_r, V, D] of this rank, less the global mean; fp32, or fp64 for fp64 views
};

// One all-gather, all views in one record. `own_sum`: an fp64 scalar that travels with it.
Moments GatherMoments(const std::vector<at::Tensor>& views, const at::Tensor& own_sum, Group& group);

// |t|^2 as an fp64 scalar: rows in the type of t (pairwise), over rows in fp64. 0 for an empty tensor.
at::Tensor SumOfSquares(const at::Tensor& t);

}  // namespace vicreg::train
