#pragma once

// The seam between the training step and what it minimises: one small class for each of recipe::Objective.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/distributed/group.h"
#include "worker/train/objective/terms.h"

namespace vicreg::train {

// What the networks made of this rank's rows of a batch: a tensor [n_r, D] for each view, row i of all of one sample.
struct Embedded {
  std::vector<at::Tensor> embeddings;   // of the expander
  std::vector<at::Tensor> predictions;  // of the predictor on them; empty where there is none
  std::vector<at::Tensor> targets;      // of the momentum target, without a graph; empty where there is none
};

// Stateless; used by one thread at a time. SUM semantics and autocast as in vicreg.h: loss is one number for the job,
// and its backward gives grad_scale times the gradient of this rank's rows, without a collective.
class Objective {
 public:
  virtual ~Objective() = default;
  // Every rank calls, in the same order. Throws std::invalid_argument for what it cannot compare.
  virtual LossResult Loss(const Embedded& batch, Group& group, double grad_scale) const = 0;
};

// For as many views as the recipe has. The terms of each:
//
//   vicreg          vicreg.h
//   barlow_twins    barlow_twins.h; with regularisation, its variance and covariance are added to those of that name,
//                   and z_std_* are of what is regularised
//   simsiam, byol   invariance: -c and 4 - 4 c (cosine.h); variance and covariance: the regularisation's; numbers of
//                   health: of what is regularised, or of the embeddings' directions (cosine.h) where nothing is
std::unique_ptr<Objective> MakeObjective(const recipe::Recipe& recipe);

}  // namespace vicreg::train
