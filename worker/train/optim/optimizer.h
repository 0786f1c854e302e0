#pragma once

// Optimizers over a list of named parameters. State is readable and writable by name, so that a checkpoint holds all of it.

#include <memory>
#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/model/parameters.h"

namespace vicreg::train {

class Optimizer {
 public:
  explicit Optimizer(std::vector<NamedTensor> parameters) : parameters_(std::move(parameters)) {}
  virtual ~Optimizer() = default;

  // One update from the .grad of every parameter. `step` is 1-based: the number this update will have.
  virtual void Step(double learning_rate, std::int64_t step) = 0;
  void ZeroGrad();
  // "<parameter>.<slot>"; the tensors themselves, to be copied into when loading.
  virtual std::vector<NamedTensor> State() const = 0;

 protected:
  const std::vector<NamedTensor> parameters_;
};

// LARS as the authors' code: momentum 0.9, eta 0.001; parameters of one dimension are neither decayed nor scaled.
// AdamW: decoupled decay (Loshchilov & Hutter), betas 0.9 and 0.999, eps 1e-8.
std::unique_ptr<Optimizer> MakeOptimizer(const recipe::Optimizer& options, const std::vector<NamedTensor>& parameters);

// Learning rate of update `step` (0-based) of `total`: from 0 linearly over `warmup`, then a cosine to final_fraction * peak.
double LearningRate(std::int64_t step, std::int64_t total, std::int64_t warmup, double peak, double final_fraction);

}  // namespace vicreg::train
