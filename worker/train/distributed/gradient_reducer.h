#pragma once

// Averages gradients over ranks while backward runs: c10d's Reducer. It averages, so the objective scales by W
// (grad_scale).

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "worker/train/distributed/group.h"

namespace vicreg::train {

class GradientReducer {
 public:
  static constexpr std::size_t kBucketBytes = 25 << 20;

  // Parameters in the order of the forward pass. A group of one makes it do nothing. What is reduced by one all-reduce
  // has `bucket_bytes` at most, or one parameter; with more than there is, nothing is reduced while backward runs.
  GradientReducer(const std::vector<at::Tensor>& parameters, Group& group, std::size_t bucket_bytes = kBucketBytes);
  ~GradientReducer();

  // Before each backward, with the tensor it starts from. When backward returns, every .grad holds the average, as a
  // view of what was reduced.
  void Prepare(const at::Tensor& loss);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vicreg::train
