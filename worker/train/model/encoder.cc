// Which encoder a name means, and the smallest two: `tiny` for small images on CPUs, `mlp` for vectors.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <stdexcept>

#include "worker/train/model/encoders.h"
#include "worker/train/model/layers.h"

namespace vicreg::train {
namespace {

class Tiny : public Encoder {
 public:
  Tiny(int channels, const std::string& prefix, Parameters& p) {
    int64_t in = channels;
    const int64_t widths[] = {24, 48, 96, 192};
    for (int i = 0; i < 4; ++i) {
      const std::string n = std::to_string(i + 1);
      layers_.emplace_back(p, prefix + "conv" + n, prefix + "bn" + n, ConvShape{in, widths[i], 3, i == 0 ? 1 : 2, 1});
      in = widths[i];
    }
  }
  at::Tensor Forward(const at::Tensor& images, int views, Group& group) override {
    at::Tensor x = images;
    for (ConvBn& layer : layers_) x = layer.Forward(x, views, group, Activation::kRelu);
    return x.mean({2, 3});
  }
  at::Tensor Evaluate(const at::Tensor& images) const override {
    const at::NoGradGuard no_grad;
    at::Tensor x = images;
    for (const ConvBn& layer : layers_) x = layer.Evaluate(x, Activation::kRelu);
    return x.mean({2, 3});
  }
  int64_t width() const override { return 192; }

 private:
  std::vector<ConvBn> layers_;
};

// (Linear with bias, BN, ReLU) three times, all of one width.
class Mlp : public Encoder {
 public:
  Mlp(const recipe::Encoder& e, int features, const std::string& prefix, Parameters& p) : width_(e.width) {
    int64_t in = features;
    for (int i = 0; i < recipe::kMlpLayers; ++i) {
      layers_.emplace_back(p, prefix + std::to_string(i), in, width_, /*bias=*/true, /*bn=*/true);
      in = width_;
    }
  }
  at::Tensor Forward(const at::Tensor& vectors, int views, Group& group) override {
    at::Tensor x = vectors;
    for (DenseLayer& layer : layers_) x = layer.Forward(x, views, group, Activation::kRelu);
    return x;
  }
  at::Tensor Evaluate(const at::Tensor& vectors) const override {
    const at::NoGradGuard no_grad;
    at::Tensor x = vectors;
    for (const DenseLayer& layer : layers_) x = layer.Evaluate(x, Activation::kRelu);
    return x;
  }
  int64_t width() const override { return width_; }

 private:
  int64_t width_;
  std::vector<DenseLayer> layers_;
};

}  // namespace

std::unique_ptr<Encoder> MakeTiny(int channels, const std::string& prefix, Parameters& parameters) {
  return std::make_unique<Tiny>(channels, prefix, parameters);
}

std::unique_ptr<Encoder> MakeMlp(const recipe::Encoder& encoder, int features, const std::string& prefix,
                                 Parameters& parameters) {
  return std::make_unique<Mlp>(encoder, features, prefix, parameters);
}

std::unique_ptr<Encoder> MakeEncoder(const recipe::Encoder& encoder, int channels, int size, const std::string& prefix,
                                     Parameters& parameters) {
  const recipe::Architecture* found = recipe::FindArchitecture(encoder.name);
  if (found == nullptr) throw std::invalid_argument("unknown encoder \"" + encoder.name + "\"");
  switch (found->family) {
    case recipe::Family::kTiny:
      return MakeTiny(channels, prefix, parameters);
    case recipe::Family::kResNet:
      return MakeResNet(*found, encoder, channels, prefix, parameters);
    case recipe::Family::kVit:
      return MakeVit(*found, channels, size, prefix, parameters);
    case recipe::Family::kMlp:
      return MakeMlp(encoder, channels, prefix, parameters);
  }
  throw std::invalid_argument("encoder \"" + encoder.name + "\" has no maker");
}

}  // namespace vicreg::train
