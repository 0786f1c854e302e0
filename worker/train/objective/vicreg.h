#pragma once

// VICReg (arXiv 2105.04906, section 4) over the rows of all ranks, each rank computing value and gradient of its own rows only.
//
// SUM semantics: with N rows present over all ranks, the loss is one number L for the job, and backward gives exactly
// grad_scale * dL/dZ for this rank's rows. A reducer that averages needs grad_scale = W, one that sums needs 1.
// Backward runs no collective. Not thread-safe; every rank calls it in the same order.
//
// Moments are merged in rank order in fp64 (Chan's update), so they are the same bits on every rank. Rows are centred with the
// global mean before they are sent; the gradient needs no term for the mean, because centred columns sum to zero.

#include <ATen/core/Tensor.h>

#include <string>

#include "common/recipe/recipe.h"
#include "worker/train/distributed/group.h"

namespace vicreg::train {

// L = lambda * inv + sum over views of (mu_per_view * var + nu_per_view * cov).
struct VicregWeights {
  double lambda_ = 25, mu_per_view = 12.5, nu_per_view = 1;
};

struct VicregTerms {
  double loss = 0;
  double invariance = 0, variance = 0, covariance = 0;  // raw; the last two summed over views
  double invariance_weighted = 0, variance_weighted = 0, covariance_weighted = 0;
  double z_std_mean = 0, z_std_min = 0, z_std_below = 0;  // of the worse view; share of dimensions below gamma = 1
  double covariance_noise_floor = 0;                      // expected covariance term of independent columns, summed over views
  double mismatch = 0;                                    // inv / (mean variance of X + of Y)
  // First term that is not finite ("invariance", "variance", "covariance"), empty if all are. The same on every rank.
  std::string nonfinite_term;
};

struct VicregResult {
  at::Tensor loss;  // scalar with a graph; its value is terms.loss, on every rank
  VicregTerms terms;
};

// x, y: [n_r, D], float32 or float64, row i of both of one sample; n_r may differ between ranks and be 0.
// Throws std::invalid_argument when shapes differ, or fewer than 2 rows are present over all ranks.
VicregResult VicregLoss(const at::Tensor& x, const at::Tensor& y, const VicregWeights& weights, recipe::LossForm form, Group& group,
                        double grad_scale);

}  // namespace vicreg::train
