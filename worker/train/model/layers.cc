#include "worker/train/model/layers.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

namespace vicreg::train {
namespace {

at::Tensor Kernel(Parameters& p, const std::string& name, const ConvShape& s) {
  std::vector<int64_t> shape = {s.out, s.in};
  int64_t taps = 1;
  for (int i = 0; i < s.dims; ++i) {
    shape.push_back(s.side);
    taps *= s.side;
  }
  return p.Normal(name, shape, std::sqrt(2.0 / static_cast<double>(s.out * taps)));
}

}  // namespace

ConvBn::ConvBn(Parameters& p, const std::string& conv, const std::string& bn, const ConvShape& shape, double bn_weight)
    : weight_(Kernel(p, conv + ".weight", shape)),
      bn_(p, bn, shape.out, bn_weight),
      stride_(shape.stride),
      padding_(shape.padding) {}

at::Tensor ConvBn::Convolve(const at::Tensor& x) const {
  if (weight_.dim() == 3) return at::conv1d(x, weight_, {}, stride_, padding_);
  // Channels innermost, as batch norm leaves them: no kernel has to turn them round.
  return at::conv2d(ChannelsInnermost(x), weight_, {}, stride_, padding_);
}

DenseLayer::DenseLayer(Parameters& p, const std::string& name, int64_t in, int64_t out, bool bias, bool bn) {
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  weight_ = p.Uniform(name + ".linear.weight", {out, in}, bound);
  if (bias) bias_ = p.Uniform(name + ".linear.bias", {out}, bound);
  if (bn) bn_.emplace(p, name + ".bn", out);
}

at::Tensor DenseLayer::Multiply(const at::Tensor& x) const {
  return bias_.defined() ? at::linear(x, weight_, bias_) : at::linear(x, weight_);
}

at::Tensor DenseLayer::Forward(const at::Tensor& x, int views, Group& group, Activation activation) {
  const at::Tensor y = Multiply(x);
  if (bn_) return bn_->Forward(y, views, group, activation);
  return activation == Activation::kRelu ? y.relu() : y;
}

at::Tensor DenseLayer::Evaluate(const at::Tensor& x, Activation activation) const {
  const at::Tensor y = Multiply(x);
  if (bn_) return bn_->Evaluate(y, activation);
  return activation == Activation::kRelu ? y.relu() : y;
}

}  // namespace vicreg::train
