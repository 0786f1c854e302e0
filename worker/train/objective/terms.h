#pragma once

// What every objective reports of one batch, over the rows of all ranks and the same on every rank.

#include <ATen/core/Tensor.h>

#include <string>

#include "common/recipe/recipe.h"

namespace vicreg::train {

// The three terms are VICReg's; what stands in their place for another objective is said where it is computed. The
// weighted ones add up to the loss. Numbers of health (from z_std_mean on) are of the embeddings as the objective sees
// them.
struct LossTerms {
  double loss = 0;
  double invariance = 0, variance = 0, covariance = 0;  // raw; the last two summed over views
  double invariance_weighted = 0, variance_weighted = 0, covariance_weighted = 0;
  double z_std_mean = 0, z_std_min = 0, z_std_below = 0;  // of the worst view; share of dimensions below gamma = 1
  double covariance_noise_floor = 0;  // expected covariance term of independent columns, summed over views
  double mismatch = 0;                // inv / expected inv of unrelated views; V = 2: of mean v_X + mean v_Y
  // Variance-weighted mean squared correlation of two dimensions: 0 independent ones, 1 all the same.
  double redundancy = 0;
  // First term that is not finite ("invariance", "variance", "covariance"), empty if all are.
  std::string nonfinite_term;
};

struct LossResult {
  at::Tensor loss;  // scalar with a graph; its value is terms.loss, on every rank. fp32 for half-precision embeddings
  LossTerms terms;
  recipe::LossForm form = recipe::LossForm::kAuto;  // the one that was computed: kGram or kCovariance; kAuto: neither
};

// First term that is not finite, or "".
std::string NonfiniteTerm(const LossTerms& terms);

}  // namespace vicreg::train
