// torchvision's VisionTransformer (Dosovitskiy et al., 2020) without heads: pre-norm blocks, learned positions, a class
// token whose last value is the representation. No batch norm, so nothing depends on other rows or ranks.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <stdexcept>

#include "worker/train/model/encoders.h"

namespace vicreg::train {
namespace {

constexpr int64_t kPatch = recipe::kVitPatch;

class LayerNorm {
 public:
  LayerNorm(Parameters& p, const std::string& name, int64_t width)
      : weight_(p.Constant(name + ".weight", {width}, 1)), bias_(p.Constant(name + ".bias", {width}, 0)) {}
  at::Tensor operator()(const at::Tensor& x) const { return at::layer_norm(x, weight_.sizes(), weight_, bias_, 1e-6); }

 private:
  at::Tensor weight_, bias_;
};

// Glorot & Bengio's uniform initialisation, as torchvision.
at::Tensor Xavier(Parameters& p, const std::string& name, int64_t out, int64_t in) {
  return p.Uniform(name, {out, in}, std::sqrt(6.0 / static_cast<double>(in + out)));
}

// x + attention(norm(x)), then x + mlp(norm(x)).
class TransformerBlock {
 public:
  TransformerBlock(Parameters& p, const std::string& name, int64_t d, int64_t heads)
      : heads_(heads),
        norm1_(p, name + ".ln_1", d),
        qkv_weight_(Xavier(p, name + ".self_attention.in_proj_weight", 3 * d, d)),
        qkv_bias_(p.Constant(name + ".self_attention.in_proj_bias", {3 * d}, 0)),
        out_weight_(p.Uniform(name + ".self_attention.out_proj.weight", {d, d}, 1 / std::sqrt(static_cast<double>(d)))),
        out_bias_(p.Constant(name + ".self_attention.out_proj.bias", {d}, 0)),
        norm2_(p, name + ".ln_2", d),
        wide_weight_(Xavier(p, name + ".mlp.0.weight", 4 * d, d)),
        wide_bias_(p.Normal(name + ".mlp.0.bias", {4 * d}, 1e-6)),
        narrow_weight_(Xavier(p, name + ".mlp.3.weight", d, 4 * d)),
        narrow_bias_(p.Normal(name + ".mlp.3.bias", {d}, 1e-6)) {}

  at::Tensor operator()(const at::Tensor& tokens) const {
    const at::Tensor x = tokens + Attention(norm1_(tokens));
    return x + at::linear(at::gelu(at::linear(norm2_(x), wide_weight_, wide_bias_)), narrow_weight_, narrow_bias_);
  }

 private:
  at::Tensor Attention(const at::Tensor& x) const {
    const int64_t n = x.size(0), s = x.size(1), d = x.size(2);
    // [n, s, 3d] -> query, key and value of [n, heads, s, d / heads]
    const auto qkv =
        at::linear(x, qkv_weight_, qkv_bias_).view({n, s, 3, heads_, d / heads_}).permute({2, 0, 3, 1, 4}).unbind(0);
    const at::Tensor y = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]);
    return at::linear(y.transpose(1, 2).reshape({n, s, d}), out_weight_, out_bias_);
  }

  int64_t heads_;
  LayerNorm norm1_;
  at::Tensor qkv_weight_, qkv_bias_, out_weight_, out_bias_;
  LayerNorm norm2_;
  at::Tensor wide_weight_, wide_bias_, narrow_weight_, narrow_bias_;
};

class Vit : public Encoder {
 public:
  Vit(const recipe::Architecture& a, int channels, int size, const std::string& prefix, Parameters& p)
      : width_(a.width),
        side_(size / kPatch),
        class_token_(p.Constant(prefix + "class_token", {1, 1, width_}, 0)),
        patch_weight_(p.Normal(prefix + "conv_proj.weight", {width_, channels, kPatch, kPatch},
                               1 / std::sqrt(static_cast<double>(channels * kPatch * kPatch)))),
        patch_bias_(p.Constant(prefix + "conv_proj.bias", {width_}, 0)),
        positions_(p.Normal(prefix + "encoder.pos_embedding", {1, 1 + side_ * side_, width_}, 0.02)) {
    for (int i = 0; i < recipe::kVitBlocks; ++i) {
      blocks_.emplace_back(p, prefix + "encoder.layers.encoder_layer_" + std::to_string(i), width_, a.heads);
    }
    norm_.emplace_back(p, prefix + "encoder.ln", width_);
  }

  at::Tensor Forward(const at::Tensor& images, int, Group&) override { return Represent(images); }
  at::Tensor Evaluate(const at::Tensor& images) const override {
    const at::NoGradGuard no_grad;
    return Represent(images);
  }
  int64_t width() const override { return width_; }

 private:
  at::Tensor Represent(const at::Tensor& images) const {
    if (images.size(2) != side_ * kPatch || images.size(3) != side_ * kPatch) {
      throw std::invalid_argument("images of " + std::to_string(images.size(2)) + " x " +
                                  std::to_string(images.size(3)) + " pixels for positions learned at " +
                                  std::to_string(side_ * kPatch));
    }
    const int64_t n = images.size(0);
    const at::Tensor patches = at::conv2d(images, patch_weight_, patch_bias_, kPatch).flatten(2).transpose(1, 2);
    at::Tensor x = at::cat({class_token_.expand({n, 1, width_}), patches}, 1) + positions_;
    for (const TransformerBlock& block : blocks_) x = block(x);
    return norm_[0](x.select(1, 0));  // row by row, so the other tokens need no norm
  }

  const int64_t width_, side_;
  at::Tensor class_token_, patch_weight_, patch_bias_, positions_;
  std::vector<TransformerBlock> blocks_;
  std::vector<LayerNorm> norm_;  // one; made last, as torchvision's order of names wants it
};

}  // namespace

std::unique_ptr<Encoder> MakeVit(const recipe::Architecture& architecture, int channels, int size,
                                 const std::string& prefix, Parameters& parameters) {
  if (size < kPatch || size % kPatch != 0) {
    throw std::invalid_argument("views of " + std::to_string(size) + " pixels cannot be cut into patches of " +
                                std::to_string(kPatch));
  }
  return std::make_unique<Vit>(architecture, channels, size, prefix, parameters);
}

}  // namespace vicreg::train
