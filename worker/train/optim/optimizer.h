#pragma once

// Optimizers over a list of named parameters. State is readable and writable by name, so that a checkpoint holds all of
// it. Parameters are updated many at a time (at::_foreach_*, at::_fused_*): on a GPU one kernel does what would be
// hundreds of launches, on a CPU one pass over memory what would be ten.

#include <memory>
#include <span>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/model/parameters.h"

namespace vicreg::train {

// Some of the parameters, all of one dimension or all of another number of them, with their state; what is updated by
// one call.
struct Bucket {
  std::vector<at::Tensor> values;
  std::vector<std::vector<at::Tensor>> state;  // one list per slot, beside `values`
  bool one_dimension = false;                  // biases and norms

  std::vector<at::Tensor> Gradients() const;
};

class Optimizer {
 public:
  // `slots`: names of the state tensors of each parameter, which start at 0.
  Optimizer(const std::vector<NamedTensor>& parameters, std::span<const char* const> slots);
  virtual ~Optimizer() = default;

  // One update from the .grad of every parameter, which it leaves as they are. `step` is 1-based: the number this
  // update will have.
  virtual void Step(double learning_rate, std::int64_t step) = 0;
  // No parameter has a gradient any more: backward writes the next ones, where zeros would be read and added to.
  void ZeroGrad();
  // Multiplies every gradient, as to take a loss scale out again.
  void ScaleGradients(double factor);
  // Length of all gradients as one vector, in fp64; not finite if any of them is not.
  double GradientNorm() const;
  // "<parameter>.<slot>", in the order of the parameters; the tensors themselves, to be copied into when loading.
  const std::vector<NamedTensor>& State() const { return state_; }

 protected:
  std::vector<Bucket> buckets_;

 private:
  std::vector<NamedTensor> state_;
};

// For a parameter p with gradient g, m starting at 0, and "matrix" for every parameter not of one dimension:
//
//  adamw  decoupled decay of every p (Loshchilov & Hutter), betas 0.9 and 0.999, eps 1e-8
//  sgd    g += wd p;  m = 0.9 m + g;  p -= rate m
//  lars   (the authors' code) matrix: g += wd p, then g *= 0.001 |p| / |g| if both norms are above 0;  m and p as sgd's
//  larc   (solo-learn) matrix, if both norms are above 0: q = eta |p| / (|g| + wd |p| + 1e-8), clipped: min(q / rate,
//  1);
//         g = q (g + wd p);  m and p as sgd's
std::unique_ptr<Optimizer> MakeOptimizer(const recipe::Optimizer& options, const std::vector<NamedTensor>& parameters);

// Learning rate of update `step` (0-based) of `total`: from 0 linearly over `warmup`, then a cosine to final_fraction *
// peak.
double LearningRate(std::int64_t step, std::int64_t total, std::int64_t warmup, double peak, double final_fraction);

}  // namespace vicreg::train
