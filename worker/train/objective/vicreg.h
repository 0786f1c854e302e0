#pragma once

// VICReg (arXiv 2105.04906, section 4) over the rows of all ranks and V >= 2 views, each rank computing value and
// gradient of its own rows only:
//
//   L = lambda * inv + sum over views k of (mu_k * var_k + nu_k * cov_k)
//
// SUM semantics: with N rows present over all ranks, the loss is one number L for the job, and backward gives exactly
// grad_scale * dL/dZ_k for this rank's rows. A reducer that averages needs grad_scale = W, one that sums needs 1.
// Forward computes the gradient too; backward multiplies it with what comes from above and runs no collective.
// Statistics, products and gradient are fp32, whatever type the embeddings have and inside any autocast; fp64 for fp64
// embeddings.
//
// Collectives of forward: one all-gather of moments (moments.h); then Gram form (gram.h), D > N: one of the centred
// rows and one of a scalar per view; covariance form (covariance.h), D <= N: one all-reduce per column block. Every
// rank calls in the same order; not thread-safe.

#include <ATen/core/Tensor.h>

#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/distributed/group.h"
#include "worker/train/objective/terms.h"

namespace vicreg::train {

using recipe::ViewWeights;

struct VicregWeights {
  double lambda_ = 25;
  std::vector<ViewWeights> views = std::vector<ViewWeights>(2);  // one per view
};

// What `convention` makes of the job's coefficients, the same for every view (recipe.h).
VicregWeights WeightsFor(recipe::Convention convention, double lambda, double mu, double nu, int views);

// views: [n_r, D] each, one floating type, row i of all of one sample; n_r may differ between ranks and be 0.
// kAuto looks at (N, D) only, so that another number of ranks keeps the form.
// Throws std::invalid_argument when there are fewer than 2 views, shapes or types differ, D is 0, the weights are not
// one per view, or fewer than 2 rows are present over all ranks.
LossResult VicregLoss(const std::vector<at::Tensor>& views, const VicregWeights& weights, recipe::LossForm form,
                      Group& group, double grad_scale);

}  // namespace vicreg::train
