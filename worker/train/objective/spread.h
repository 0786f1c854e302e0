#pragma once

// How far embeddings spread in each dimension: VICReg's variance term and the numbers of health, from the columns'
// variances (moments.h). Part of every objective's report, whether it has a variance term or not.

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/train/objective/terms.h"

namespace vicreg::train {

inline constexpr double kSpreadEpsilon = 1e-4;  // inside the root
inline constexpr double kGamma = 1;             // what the hinge holds deviations above

// s_j = sqrt(v_j + eps).
at::Tensor Deviations(const at::Tensor& variance);

// Of one view.
struct Spread {
  double hinge = 0;  // mean over dimensions of max(0, gamma - s_j): the variance term
  double std_mean = 0, std_min = 0, std_below = 0;
  double sum_v = 0, sum_v2 = 0;

  // Expected covariance term of `dims` independent columns: ((sum v)^2 - sum v^2) / (D (N - 1)).
  double NoiseFloor(double rows, double dims) const { return (sum_v * sum_v - sum_v2) / (dims * (rows - 1)); }
};

// variance: [V, D], fp64. One copy to the host.
std::vector<Spread> Spreads(const at::Tensor& variance);

// z_std_*: of the worst view.
void ReportSpread(const std::vector<Spread>& views, LossTerms& terms);

}  // namespace vicreg::train
