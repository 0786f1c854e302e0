// torchvision's ResNets (He et al., 2015) without fc, for images and, with kernels of one dimension, for waveforms.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "worker/train/model/encoders.h"
#include "worker/train/model/layers.h"

namespace vicreg::train {
namespace {

// Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1 whose stride is the 3x3's (torchvision's "v1.5"), and a
// shortcut.
class Block {
 public:
  struct Shape {
    int64_t in, inner, out, stride;
    bool bottleneck;
    int dims;
    double last_bn;  // initial weight; 0: the block starts as its shortcut
  };

  Block(Parameters& p, const std::string& name, const Shape& s) {
    const auto add = [&](const char* n, const ConvShape& shape, double bn_weight) {
      branch_.emplace_back(p, name + ".conv" + n, name + ".bn" + n, shape, bn_weight);
    };
    if (s.bottleneck) {
      add("1", {s.in, s.inner, 1, 1, 0, s.dims}, 1);
      add("2", {s.inner, s.inner, 3, s.stride, 1, s.dims}, 1);
      add("3", {s.inner, s.out, 1, 1, 0, s.dims}, s.last_bn);
    } else {
      add("1", {s.in, s.inner, 3, s.stride, 1, s.dims}, 1);
      add("2", {s.inner, s.out, 3, 1, 1, s.dims}, s.last_bn);
    }
    if (s.stride != 1 || s.in != s.out) {
      shortcut_.emplace_back(p, name + ".downsample.0", name + ".downsample.1",
                             ConvShape{s.in, s.out, 1, s.stride, 0, s.dims});
    }
  }
  at::Tensor Forward(const at::Tensor& x, int views, Group& group) {
    at::Tensor y = x;
    for (size_t i = 0; i + 1 < branch_.size(); ++i) y = branch_[i].Forward(y, views, group, Activation::kRelu);
    y = branch_.back().Forward(y, views, group, Activation::kNone);
    return y.add_(shortcut_.empty() ? x : shortcut_[0].Forward(x, views, group, Activation::kNone)).relu_();
  }
  at::Tensor Evaluate(const at::Tensor& x) const {
    at::Tensor y = x;
    for (size_t i = 0; i + 1 < branch_.size(); ++i) y = branch_[i].Evaluate(y, Activation::kRelu);
    y = branch_.back().Evaluate(y, Activation::kNone);
    return y.add_(shortcut_.empty() ? x : shortcut_[0].Evaluate(x, Activation::kNone)).relu_();
  }

 private:
  std::vector<ConvBn> branch_;
  std::vector<ConvBn> shortcut_;  // none or one
};

ConvShape Stem(const recipe::Encoder& e, int channels, int dims) {
  if (e.stem == recipe::Stem::kStandard) return {channels, e.width, 7, 2, 3, dims};
  return {channels, e.width, 3, 1, e.stem == recipe::Stem::kSmallPadding2 ? 2 : 1, dims};
}

class ResNet : public Encoder {
 public:
  ResNet(const recipe::Architecture& a, const recipe::Encoder& e, int channels, const std::string& prefix,
         Parameters& p)
      : dims_(a.input == recipe::Input::kWaveforms ? 1 : 2),
        pool_(e.stem == recipe::Stem::kStandard),
        stem_(p, prefix + "conv1", prefix + "bn1", Stem(e, channels, dims_)),
        width_(recipe::RepresentationWidth(e)) {
    int64_t in = e.width;
    for (int stage = 0; stage < 4; ++stage) {
      const int64_t inner = static_cast<int64_t>(e.width) << stage, out = a.bottleneck ? 4 * inner : inner;
      for (int block = 0; block < a.blocks[stage]; ++block) {
        const std::string name = prefix + "layer" + std::to_string(stage + 1) + "." + std::to_string(block);
        const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
        blocks_.emplace_back(
            p, name, Block::Shape{in, inner, out, stride, a.bottleneck, dims_, e.zero_init_residual ? 0.0 : 1.0});
        in = out;
      }
    }
  }
  at::Tensor Forward(const at::Tensor& samples, int views, Group& group) override {
    at::Tensor x = Pool(stem_.Forward(samples, views, group, Activation::kRelu));
    for (Block& block : blocks_) x = block.Forward(x, views, group);
    return Mean(x);
  }
  at::Tensor Evaluate(const at::Tensor& samples) const override {
    const at::NoGradGuard no_grad;
    at::Tensor x = Pool(stem_.Evaluate(samples, Activation::kRelu));
    for (const Block& block : blocks_) x = block.Evaluate(x);
    return Mean(x);
  }
  int64_t width() const override { return width_; }

 private:
  at::Tensor Pool(const at::Tensor& x) const {
    if (!pool_) return x;
    return dims_ == 1 ? at::max_pool1d(x, {3}, {2}, {1}) : at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
  }
  at::Tensor Mean(const at::Tensor& x) const { return dims_ == 1 ? x.mean({2}) : x.mean({2, 3}); }

  const int dims_;
  const bool pool_;
  ConvBn stem_;
  const int64_t width_;
  std::vector<Block> blocks_;
};

}  // namespace

std::unique_ptr<Encoder> MakeResNet(const recipe::Architecture& architecture, const recipe::Encoder& encoder,
                                    int channels, const std::string& prefix, Parameters& parameters) {
  return std::make_unique<ResNet>(architecture, encoder, channels, prefix, parameters);
}

}  // namespace vicreg::train
