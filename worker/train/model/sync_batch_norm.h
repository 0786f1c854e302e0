#pragma once

// Batch normalisation over the rows of all ranks (Ioffe & Szegedy; synchronised as in PyTorch's SyncBatchNorm, which
// has no C++ form and refuses CPU tensors). Statistics are weighted by row counts, so uneven and empty ranks are exact.
//
// The input is `views` batches on top of each other, each normalised by its own statistics as if it had been passed
// alone: one all-gather in forward and one in backward for all views together. Running buffers are updated in view
// order.

#include <string>

#include "worker/train/distributed/group.h"
#include "worker/train/model/channel_passes.h"
#include "worker/train/model/parameters.h"

namespace vicreg::train {

class SyncBatchNorm {
 public:
  // torchvision's names beneath `name`: weight, bias, running_mean, running_var, num_batches_tracked.
  SyncBatchNorm(Parameters& parameters, const std::string& name, int64_t channels, double initial_weight = 1);

  // x: [views * n, C], [views * n, C, L] or [views * n, C, H, W]. What comes out has its channels innermost in memory
  // (channels_last), and went through the activation in the same pass.
  at::Tensor Forward(const at::Tensor& x, int views, Group& group, Activation activation = Activation::kNone);
  // With the running statistics; no gradient.
  at::Tensor Evaluate(const at::Tensor& x, Activation activation = Activation::kNone) const;

 private:
  at::Tensor weight_, bias_, running_mean_, running_var_, batches_;
};

// The same without weight, bias and buffers: each column of each view to mean 0 and deviation 1 over the rows of all
// ranks.
at::Tensor Standardise(const at::Tensor& x, int views, Group& group);

}  // namespace vicreg::train
