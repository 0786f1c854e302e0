#pragma once

// Averages gradients over ranks while backward runs: c10d's Reducer. It averages, so the objective scales by W
// (grad_scale).

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

class GradientReducer {
 public:
  // Parameters in the order of the forward pass. A group of one makes it do nothing.
  GradientReducer(const std::vector<at::Tensor>& parameters, Group& group);
  ~GradientReducer();

  // Before each backward, with the tensor it starts from. When backward returns, every .grad holds the average.
  void Prepare(const at::Tensor& loss);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vicreg::train
