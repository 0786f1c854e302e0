// The encoders: `tiny` for small images on CPUs, and torchvision's ResNet-18 with a width and a stem to choose.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <stdexcept>

#include "worker/train/model/network.h"
#include "worker/train/model/sync_batch_norm.h"

namespace vicreg::train {
namespace {

// Convolution without bias, then BN. He et al.'s initialisation with fan-out, as torchvision.
class ConvBn {
 public:
  ConvBn(Parameters& p, const std::string& conv, const std::string& bn, int64_t in, int64_t out, int64_t side, int64_t stride, int64_t padding,
         double bn_weight = 1)
      : weight_(p.Normal(conv + ".weight", {out, in, side, side}, std::sqrt(2.0 / static_cast<double>(out * side * side)))),
        bn_(p, bn, out, bn_weight),
        stride_(stride),
        padding_(padding) {}

  at::Tensor Forward(const at::Tensor& x, int views, Group& group) { return bn_.Forward(Convolve(x), views, group); }
  at::Tensor Evaluate(const at::Tensor& x) const { return bn_.Evaluate(Convolve(x)); }

 private:
  at::Tensor Convolve(const at::Tensor& x) const { return at::conv2d(x, weight_, {}, stride_, padding_); }

  at::Tensor weight_;
  SyncBatchNorm bn_;
  int64_t stride_, padding_;
};

class Tiny : public Encoder {
 public:
  Tiny(int channels, const std::string& prefix, Parameters& p) {
    int64_t in = channels;
    const int64_t widths[] = {24, 48, 96, 192};
    for (int i = 0; i < 4; ++i) {
      const std::string n = std::to_string(i + 1);
      layers_.emplace_back(p, prefix + "conv" + n, prefix + "bn" + n, in, widths[i], 3, i == 0 ? 1 : 2, 1);
      in = widths[i];
    }
  }
  at::Tensor Forward(const at::Tensor& images, int views, Group& group) override {
    at::Tensor x = images;
    for (ConvBn& layer : layers_) x = layer.Forward(x, views, group).relu();
    return x.mean({2, 3});
  }
  at::Tensor Evaluate(const at::Tensor& images) const override {
    const at::NoGradGuard no_grad;
    at::Tensor x = images;
    for (const ConvBn& layer : layers_) x = layer.Evaluate(x).relu_();
    return x.mean({2, 3});
  }
  int64_t width() const override { return 192; }

 private:
  std::vector<ConvBn> layers_;
};

// Two 3x3 convolutions and a shortcut (He et al., 2015). The last BN starts at 0: the block starts as its shortcut.
class BasicBlock {
 public:
  BasicBlock(Parameters& p, const std::string& name, int64_t in, int64_t out, int64_t stride)
      : first_(p, name + ".conv1", name + ".bn1", in, out, 3, stride, 1), second_(p, name + ".conv2", name + ".bn2", out, out, 3, 1, 1, 0) {
    if (stride != 1 || in != out) shortcut_.emplace_back(p, name + ".downsample.0", name + ".downsample.1", in, out, 1, stride, 0);
  }
  at::Tensor Forward(const at::Tensor& x, int views, Group& group) {
    const at::Tensor y = second_.Forward(first_.Forward(x, views, group).relu(), views, group);
    return (y + (shortcut_.empty() ? x : shortcut_[0].Forward(x, views, group))).relu();
  }
  at::Tensor Evaluate(const at::Tensor& x) const {
    const at::Tensor y = second_.Evaluate(first_.Evaluate(x).relu_());
    return (y + (shortcut_.empty() ? x : shortcut_[0].Evaluate(x))).relu_();
  }

 private:
  ConvBn first_, second_;
  std::vector<ConvBn> shortcut_;  // none or one
};

class ResNet18 : public Encoder {
 public:
  ResNet18(const recipe::Encoder& e, int channels, const std::string& prefix, Parameters& p)
      : small_(e.stem == recipe::Stem::kSmall),
        stem_(p, prefix + "conv1", prefix + "bn1", channels, e.width, small_ ? 3 : 7, small_ ? 1 : 2, small_ ? 1 : 3),
        width_(e.width * 8) {
    int64_t in = e.width;
    for (int stage = 0; stage < 4; ++stage) {
      const int64_t out = static_cast<int64_t>(e.width) << stage;
      for (int block = 0; block < 2; ++block) {
        const std::string name = prefix + "layer" + std::to_string(stage + 1) + "." + std::to_string(block);
        blocks_.emplace_back(p, name, in, out, stage > 0 && block == 0 ? 2 : 1);
        in = out;
      }
    }
  }
  at::Tensor Forward(const at::Tensor& images, int views, Group& group) override {
    at::Tensor x = Pool(stem_.Forward(images, views, group).relu());
    for (BasicBlock& block : blocks_) x = block.Forward(x, views, group);
    return x.mean({2, 3});
  }
  at::Tensor Evaluate(const at::Tensor& images) const override {
    const at::NoGradGuard no_grad;
    at::Tensor x = Pool(stem_.Evaluate(images).relu_());
    for (const BasicBlock& block : blocks_) x = block.Evaluate(x);
    return x.mean({2, 3});
  }
  int64_t width() const override { return width_; }

 private:
  at::Tensor Pool(const at::Tensor& x) const { return small_ ? x : at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1}); }

  bool small_;
  ConvBn stem_;
  int64_t width_;
  std::vector<BasicBlock> blocks_;
};

}  // namespace

std::unique_ptr<Encoder> MakeEncoder(const recipe::Encoder& encoder, int channels, const std::string& prefix, Parameters& parameters) {
  if (encoder.name == "tiny") return std::make_unique<Tiny>(channels, prefix, parameters);
  if (encoder.name == "resnet18") return std::make_unique<ResNet18>(encoder, channels, prefix, parameters);
  throw std::invalid_argument("unknown encoder \"" + encoder.name + "\"; expected tiny or resnet18");
}

}  // namespace vicreg::train
