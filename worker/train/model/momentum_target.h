#pragma once

// BYOL's target (arXiv 2006.07733, section 3.1): a second network like the trained one, encoder and expander of every
// branch, that is not trained but follows it as a moving average. It starts as a copy. Like the trained network it
// normalises by the statistics of the batch; the running ones, which nothing reads, are moved by its own passes.

#include <ATen/core/Tensor.h>

#include <vector>

#include "common/recipe/recipe.h"
#include "worker/train/model/network.h"

namespace vicreg::train {

// The factor of update number `step` (1-based) of `total`: 1 - (1 - base) * (1 + cos(pi (step - 1) / total)) / 2, which
// is `base` at first and rises to 1.
double TargetMomentum(std::int64_t step, std::int64_t total, double base);

class MomentumTarget {
 public:
  // `online` outlives it and has the weights of its seed still. On the same device.
  MomentumTarget(const recipe::Recipe& recipe, const Network& online, at::ScalarType dtype);

  // As Network::Forward, without a graph.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& views, Group& group);
  // target <- momentum * target + (1 - momentum) * online, for all that is trained.
  void Follow(double momentum);

  // "target.<name>" of every tensor, for checkpoints; the tensors themselves.
  std::vector<NamedTensor> State() const;

 private:
  Network network_;
  std::vector<at::Tensor> own_, online_;  // in the same order
};

}  // namespace vicreg::train
