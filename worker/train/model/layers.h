#pragma once

// Layers that more than one network is made of, each with what activates it. Statistics of batch norm are per view and
// over all ranks (sync_batch_norm.h).

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "worker/train/distributed/group.h"
#include "worker/train/model/parameters.h"
#include "worker/train/model/sync_batch_norm.h"

namespace vicreg::train {

// `dims` 2: images [n, C, H, W] and square kernels; 1: waveforms [n, C, L].
struct ConvShape {
  int64_t in, out, side, stride, padding;
  int dims = 2;
};

// Convolution without bias, then BN. He et al.'s initialisation with fan-out, as torchvision.
class ConvBn {
 public:
  ConvBn(Parameters& p, const std::string& conv, const std::string& bn, const ConvShape& shape, double bn_weight = 1);

  at::Tensor Forward(const at::Tensor& x, int views, Group& group, Activation activation) {
    return bn_.Forward(Convolve(x), views, group, activation);
  }
  at::Tensor Evaluate(const at::Tensor& x, Activation activation) const {
    return bn_.Evaluate(Convolve(x), activation);
  }

 private:
  at::Tensor Convolve(const at::Tensor& x) const;

  at::Tensor weight_;
  SyncBatchNorm bn_;
  int64_t stride_, padding_;
};

// <name>.linear, with a bias if `bias`, then <name>.bn if `bn`; torch.nn.Linear's initialisation.
class DenseLayer {
 public:
  DenseLayer(Parameters& p, const std::string& name, int64_t in, int64_t out, bool bias, bool bn);

  at::Tensor Forward(const at::Tensor& x, int views, Group& group, Activation activation);
  at::Tensor Evaluate(const at::Tensor& x, Activation activation) const;

 private:
  at::Tensor Multiply(const at::Tensor& x) const;

  at::Tensor weight_, bias_;
  std::optional<SyncBatchNorm> bn_;
};

}  // namespace vicreg::train
