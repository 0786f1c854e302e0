// Goal: every encoder and every normalisation of embeddings is what it is called. Method: names and shapes from written
// lists, counts against the recipe's formulas and published tables; forward and backward against ATen's own operations
// by name; ranks as threads against one process.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "common/recipe/networks.h"
#include "tests/train/ranks.h"
#include "worker/train/model/network.h"

namespace vicreg::train {
namespace {

const bool kOneThread = [] {  // small shapes: more threads only wait for each other
  at::set_num_threads(1);
  return true;
}();

using recipe::Stem;
using Shape = std::vector<int64_t>;
using NameAndShape = std::pair<std::string, Shape>;
using Tensors = std::map<std::string, at::Tensor>;

at::Tensor Normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(seed)).to(dtype);
}

double Distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

std::vector<NameAndShape> Shapes(const std::vector<NamedTensor>& tensors) {
  std::vector<NameAndShape> shapes;
  for (const NamedTensor& t : tensors) shapes.emplace_back(t.name, t.value.sizes().vec());
  return shapes;
}

int64_t Numbers(const std::vector<NamedTensor>& tensors) {
  int64_t count = 0;
  for (const NamedTensor& t : tensors) count += t.value.numel();
  return count;
}

// Four samples (two views of two) that the encoder reads, with an odd side where it may be: that tells paddings apart.
at::Tensor Samples(const recipe::Encoder& encoder, int64_t rows = 4, at::ScalarType dtype = at::kDouble) {
  const recipe::Architecture& a = *recipe::FindArchitecture(encoder.name);
  if (a.input == recipe::Input::kVectors) return Normal({rows, 3}, 100, dtype);
  if (a.input == recipe::Input::kWaveforms) return Normal({rows, 3, 131}, 100, dtype);
  const int64_t side = a.family == recipe::Family::kVit ? 32 : 33;
  return Normal({rows, 3, side, side}, 100, dtype);
}

// Every encoder there is, narrow where it can be.
const recipe::Encoder kNarrow[] = {{"tiny"},
                                   {"resnet18", Stem::kSmall, 4},
                                   {"resnet34", Stem::kSmallPadding2, 4},
                                   {"resnet50", Stem::kStandard, 4},
                                   {"resnet101", Stem::kSmall, 4},
                                   {"resnet50x2", Stem::kStandard, 4},
                                   {"vit_ti16"},
                                   {"vit_s16"},
                                   {"resnet1d18", Stem::kStandard, 4},
                                   {"mlp", Stem::kSmall, 7}};

TEST(Encoders, AllOfTheTableCanBeBuiltAndCountedInAdvance) {
  std::set<std::string> seen;
  for (const recipe::Encoder& e : kNarrow) {
    SCOPED_TRACE(e.name);
    seen.insert(e.name);
    Parameters parameters(1, at::kFloat);
    const auto encoder = MakeEncoder(e, 3, 32, "encoder.", parameters);
    EXPECT_EQ(Numbers(parameters.trained()), recipe::EncoderParameters(e, 3, 32));
    EXPECT_EQ(encoder->width(), recipe::RepresentationWidth(e));
    Group alone;
    const at::Tensor x = Samples(e, 4, at::kFloat);
    EXPECT_EQ(encoder->Forward(x, 2, alone).sizes(), (Shape{4, encoder->width()}));
    EXPECT_EQ(encoder->Evaluate(x).sizes(), (Shape{4, encoder->width()}));
    for (const NamedTensor& t : parameters.all()) EXPECT_TRUE(t.name.starts_with("encoder.")) << t.name;
  }
  for (const recipe::Architecture& a : recipe::Architectures()) EXPECT_EQ(seen.count(a.name), 1u) << a.name;
}

// At their own width, for 224-pixel pictures of three channels: published sizes less a head of 1000 classes, and the
// specification's millions.
TEST(Encoders, HaveThePublishedSizes) {
  const struct {
    recipe::Encoder encoder;
    int64_t count, width;
  } rows[] = {
      {{"resnet34", Stem::kStandard, 64}, 21'797'672 - 513'000, 512},
      {{"resnet50", Stem::kStandard, 64}, 25'557'032 - 2'049'000, 2048},
      {{"resnet101", Stem::kStandard, 64}, 44'549'160 - 2'049'000, 2048},
      {{"resnet50x2", Stem::kStandard, 128}, 93'907'072, 4096},
      {{"vit_ti16"}, 5'717'416 - 193'000, 192},
      {{"vit_s16"}, 22'050'664 - 385'000, 384},
  };
  for (const auto& r : rows) {
    Parameters parameters(1, at::kFloat);
    const auto encoder = MakeEncoder(r.encoder, 3, 224, "", parameters);
    EXPECT_EQ(Numbers(parameters.trained()), r.count) << r.encoder.name;
    EXPECT_EQ(encoder->width(), r.width) << r.encoder.name;
  }
  Parameters parameters(1, at::kFloat);
  EXPECT_EQ(MakeEncoder({"resnet1d18", Stem::kStandard, 48}, 1, 0, "", parameters)->width(), 384);
}

// torchvision's state_dict of a ResNet without fc. `side`: of the stem; `dims`: of a kernel.
std::vector<NameAndShape> TorchvisionResNet(const std::vector<int>& blocks, bool bottleneck, int64_t width,
                                            int64_t channels, int64_t side, int dims) {
  std::vector<NameAndShape> shapes;
  const auto conv_bn = [&](const std::string& conv, const std::string& bn, int64_t out, int64_t in, int64_t taps) {
    Shape shape = {out, in};
    for (int i = 0; i < dims; ++i) shape.push_back(taps);
    shapes.emplace_back(conv + ".weight", shape);
    for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"})
      shapes.emplace_back(bn + part, Shape{out});
    shapes.emplace_back(bn + ".num_batches_tracked", Shape{});
  };
  conv_bn("conv1", "bn1", width, channels, side);
  int64_t in = width;
  for (int stage = 1; stage <= 4; ++stage) {
    const int64_t inner = width << (stage - 1), out = bottleneck ? 4 * inner : inner;
    for (int block = 0; block < blocks[static_cast<std::size_t>(stage - 1)]; ++block) {
      const std::string name = "layer" + std::to_string(stage) + "." + std::to_string(block);
      if (bottleneck) {
        conv_bn(name + ".conv1", name + ".bn1", inner, in, 1);
        conv_bn(name + ".conv2", name + ".bn2", inner, inner, 3);
        conv_bn(name + ".conv3", name + ".bn3", out, inner, 1);
      } else {
        conv_bn(name + ".conv1", name + ".bn1", inner, in, 3);
        conv_bn(name + ".conv2", name + ".bn2", out, inner, 3);
      }
      if (in != out) conv_bn(name + ".downsample.0", name + ".downsample.1", out, in, 1);
      in = out;
    }
  }
  return shapes;
}

TEST(Encoders, ResNetsHaveTorchvisionsNamesAndShapes) {
  const struct {
    recipe::Encoder encoder;
    std::vector<int> blocks;
    bool bottleneck;
    int64_t side;
    int dims;
  } rows[] = {
      {{"resnet18", Stem::kSmallPadding2, 8}, {2, 2, 2, 2}, false, 3, 2},
      {{"resnet34", Stem::kStandard, 8}, {3, 4, 6, 3}, false, 7, 2},
      {{"resnet50", Stem::kStandard, 8}, {3, 4, 6, 3}, true, 7, 2},
      {{"resnet101", Stem::kSmall, 8}, {3, 4, 23, 3}, true, 3, 2},
      {{"resnet50x2", Stem::kStandard, 16}, {3, 4, 6, 3}, true, 7, 2},
      {{"resnet1d18", Stem::kStandard, 8}, {2, 2, 2, 2}, false, 7, 1},
  };
  for (const auto& r : rows) {
    Parameters parameters(1, at::kFloat);
    MakeEncoder(r.encoder, 5, 32, "", parameters);
    EXPECT_EQ(Shapes(parameters.all()), TorchvisionResNet(r.blocks, r.bottleneck, r.encoder.width, 5, r.side, r.dims))
        << r.encoder.name;
  }
}

TEST(Encoders, VitHasTorchvisionsNamesAndShapes) {
  Parameters parameters(1, at::kFloat);
  MakeEncoder({"vit_ti16"}, 3, 48, "", parameters);
  std::vector<NameAndShape> want = {{"class_token", {1, 1, 192}},
                                    {"conv_proj.weight", {192, 3, 16, 16}},
                                    {"conv_proj.bias", {192}},
                                    {"encoder.pos_embedding", {1, 10, 192}}};
  for (int i = 0; i < 12; ++i) {
    const std::string name = "encoder.layers.encoder_layer_" + std::to_string(i) + ".";
    want.insert(want.end(), {{name + "ln_1.weight", {192}},
                             {name + "ln_1.bias", {192}},
                             {name + "self_attention.in_proj_weight", {576, 192}},
                             {name + "self_attention.in_proj_bias", {576}},
                             {name + "self_attention.out_proj.weight", {192, 192}},
                             {name + "self_attention.out_proj.bias", {192}},
                             {name + "ln_2.weight", {192}},
                             {name + "ln_2.bias", {192}},
                             {name + "mlp.0.weight", {768, 192}},
                             {name + "mlp.0.bias", {768}},
                             {name + "mlp.3.weight", {192, 768}},
                             {name + "mlp.3.bias", {192}}});
  }
  want.insert(want.end(), {{"encoder.ln.weight", {192}}, {"encoder.ln.bias", {192}}});
  EXPECT_EQ(Shapes(parameters.all()), want);
}

// A copy of all tensors by name, after moving scales and shifts away from their initial 0 and 1, so that everything
// counts.
Tensors Moved(Parameters& parameters) {
  const at::NoGradGuard no_grad;
  Tensors tensors;
  std::uint64_t seed = 0;
  for (const NamedTensor& p : parameters.all()) {
    at::Tensor value = p.value;
    if (p.value.requires_grad() && (p.value.dim() == 1 || p.name == "class_token")) {
      value.add_(Normal(p.value.sizes(), ++seed).abs() * 0.3 + 0.1);
    }
    tensors[p.name] = p.value.detach().clone();
  }
  return tensors;
}

// torchvision's ResNet by name, on one view; running statistics move when training.
at::Tensor PlainResNet(Tensors& t, const at::Tensor& samples, Stem stem, bool training) {
  const auto conv = [&](const at::Tensor& x, const std::string& name, int64_t stride, int64_t padding) {
    const at::Tensor& w = t.at(name + ".weight");
    return w.dim() == 3 ? at::conv1d(x, w, {}, stride, padding) : at::conv2d(x, w, {}, stride, padding);
  };
  const auto norm = [&](const at::Tensor& x, const std::string& bn) {
    return at::batch_norm(x, t.at(bn + ".weight"), t.at(bn + ".bias"), t.at(bn + ".running_mean"),
                          t.at(bn + ".running_var"), training, 0.1, 1e-5, false);
  };
  at::Tensor x = norm(conv(samples, "conv1", stem == Stem::kStandard ? 2 : 1,
                           stem == Stem::kStandard        ? 3
                           : stem == Stem::kSmallPadding2 ? 2
                                                          : 1),
                      "bn1")
                     .relu();
  if (stem == Stem::kStandard) {
    x = x.dim() == 3 ? at::max_pool1d(x, {3}, {2}, {1}) : at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
  }
  for (int stage = 1; stage <= 4; ++stage) {
    for (int block = 0;; ++block) {
      const std::string name = "layer" + std::to_string(stage) + "." + std::to_string(block);
      if (t.count(name + ".conv1.weight") == 0) break;
      const int64_t stride = stage > 1 && block == 0 ? 2 : 1;
      at::Tensor y;
      if (t.count(name + ".conv3.weight") != 0) {
        y = norm(conv(x, name + ".conv1", 1, 0), name + ".bn1").relu();
        y = norm(conv(y, name + ".conv2", stride, 1), name + ".bn2").relu();
        y = norm(conv(y, name + ".conv3", 1, 0), name + ".bn3");
      } else {
        y = norm(conv(x, name + ".conv1", stride, 1), name + ".bn1").relu();
        y = norm(conv(y, name + ".conv2", 1, 1), name + ".bn2");
      }
      if (t.count(name + ".downsample.0.weight") != 0) {
        x = norm(conv(x, name + ".downsample.0", stride, 0), name + ".downsample.1");
      }
      x = (y + x).relu();
    }
  }
  return x.flatten(2).mean(2);
}

// Attention written out, head by head.
at::Tensor PlainVit(Tensors& t, const at::Tensor& images, int64_t heads) {
  const int64_t n = images.size(0), d = t.at("class_token").size(2), width = d / heads;
  const auto norm = [&](const at::Tensor& x, const std::string& name) {
    const at::Tensor mean = x.mean(-1, true), centred = x - mean;
    return centred / (centred.square().mean(-1, true) + 1e-6).sqrt() * t.at(name + ".weight") + t.at(name + ".bias");
  };
  std::vector<at::Tensor> tokens = {t.at("class_token").expand({n, 1, d})};
  for (int64_t y = 0; y < images.size(2); y += 16) {
    for (int64_t x = 0; x < images.size(3); x += 16) {
      const at::Tensor patch = images.narrow(2, y, 16).narrow(3, x, 16).reshape({n, -1});
      tokens.push_back(
          (patch.matmul(t.at("conv_proj.weight").reshape({d, -1}).t()) + t.at("conv_proj.bias")).unsqueeze(1));
    }
  }
  at::Tensor x = at::cat(tokens, 1) + t.at("encoder.pos_embedding");
  for (int i = 0; i < 12; ++i) {
    const std::string name = "encoder.layers.encoder_layer_" + std::to_string(i);
    const at::Tensor y = norm(x, name + ".ln_1");
    const at::Tensor qkv =
        y.matmul(t.at(name + ".self_attention.in_proj_weight").t()) + t.at(name + ".self_attention.in_proj_bias");
    std::vector<at::Tensor> out;
    for (int64_t h = 0; h < heads; ++h) {
      const at::Tensor q = qkv.narrow(2, h * width, width), k = qkv.narrow(2, d + h * width, width),
                       v = qkv.narrow(2, 2 * d + h * width, width);
      out.push_back((q.matmul(k.transpose(1, 2)) / std::sqrt(static_cast<double>(width))).softmax(-1).matmul(v));
    }
    x = x + at::cat(out, 2).matmul(t.at(name + ".self_attention.out_proj.weight").t()) +
        t.at(name + ".self_attention.out_proj.bias");
    const at::Tensor wide =
        norm(x, name + ".ln_2").matmul(t.at(name + ".mlp.0.weight").t()) + t.at(name + ".mlp.0.bias");
    const at::Tensor gelu = 0.5 * wide * (1 + at::erf(wide / std::sqrt(2.0)));
    x = x + gelu.matmul(t.at(name + ".mlp.3.weight").t()) + t.at(name + ".mlp.3.bias");
  }
  return norm(x, "encoder.ln").select(1, 0);
}

at::Tensor PlainMlp(Tensors& t, at::Tensor x, bool training) {
  for (const std::string n : {"0", "1", "2"}) {
    x = x.matmul(t.at(n + ".linear.weight").t()) + t.at(n + ".linear.bias");
    x = at::batch_norm(x, t.at(n + ".bn.weight"), t.at(n + ".bn.bias"), t.at(n + ".bn.running_mean"),
                       t.at(n + ".bn.running_var"), training, 0.1, 1e-5, false)
            .relu();
  }
  return x;
}

TEST(Encoders, ComputeWhatTheirPlainOperationsComputeOnEachView) {
  for (recipe::Encoder e : kNarrow) {
    if (e.name == "tiny") continue;  // model_test.cc
    SCOPED_TRACE(e.name);
    Parameters parameters(1, at::kDouble);
    const auto encoder = MakeEncoder(e, 3, 32, "", parameters);
    Tensors t = Moved(parameters);
    const auto plain = [&](const at::Tensor& x, bool training) {
      switch (recipe::FindArchitecture(e.name)->family) {
        case recipe::Family::kVit:
          return PlainVit(t, x, e.name == "vit_s16" ? 6 : 3);
        case recipe::Family::kMlp:
          return PlainMlp(t, x, training);
        default:
          return PlainResNet(t, x, e.stem, training);
      }
    };
    for (const NamedTensor& p : parameters.trained()) t[p.name].set_requires_grad(true);
    const at::Tensor x = Samples(e, 6), above = Normal({6, encoder->width()}, 7);
    Group alone;
    const at::Tensor got = encoder->Forward(x, 2, alone), first = plain(x.narrow(0, 0, 3), true),
                     second = plain(x.narrow(0, 3, 3), true), want = at::cat({first, second});
    EXPECT_LT(Distance(got, want), 1e-10 * std::max(1.0, want.abs().max().item<double>()));
    EXPECT_GT(Distance(first, second), 1e-3) << "the views are different";
    (got * above).sum().backward();
    (want * above).sum().backward();
    double largest = 0;
    for (const NamedTensor& p : parameters.trained()) {
      largest = std::max(largest, t.at(p.name).grad().abs().max().item<double>());
    }
    for (const NamedTensor& p : parameters.trained()) {
      const at::Tensor& gradient = p.value.grad();
      ASSERT_TRUE(gradient.defined()) << p.name;
      EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << p.name;
      // A bias before a batch norm has no effect.
      EXPECT_TRUE(p.value.dim() == 1 || gradient.abs().max().item<double>() > 1e-9 * largest) << p.name;
      EXPECT_LT(Distance(gradient, t.at(p.name).grad()), 1e-9 * largest) << p.name;
    }
    for (const NamedTensor& p : parameters.all()) {
      if (!p.value.is_floating_point()) continue;  // the counter
      EXPECT_LT(Distance(p.value.detach(), t.at(p.name).detach()), 1e-10) << p.name;
    }
    const at::Tensor kept = encoder->Evaluate(x);
    EXPECT_FALSE(kept.requires_grad());
    EXPECT_LT(Distance(kept, plain(x, false).detach()), 1e-10 * std::max(1.0, kept.abs().max().item<double>()));
  }
}

TEST(Encoders, ARankWithoutRowsTakesPart) {
  for (const recipe::Encoder& e : kNarrow) {
    SCOPED_TRACE(e.name);
    const at::Tensor x = Samples(e, 4);
    Parameters whole(1, at::kDouble);
    Group alone;
    const at::Tensor want = MakeEncoder(e, 3, 32, "", whole)->Forward(x, 2, alone).detach();
    RunRanks(2, [&](Group& group) {
      Parameters parameters(1, at::kDouble);
      const auto encoder = MakeEncoder(e, 3, 32, "", parameters);
      const at::Tensor own = group.rank() == 0 ? x : x.narrow(0, 0, 0);
      const at::Tensor got = encoder->Forward(own, 2, group);
      EXPECT_EQ(got.sizes(), (Shape{own.size(0), encoder->width()}));
      EXPECT_TRUE(group.rank() == 1 || Distance(got.detach(), want) < 1e-10);
      got.sum().backward();
      for (const NamedTensor& p : parameters.trained()) {
        ASSERT_TRUE(p.value.grad().defined()) << p.name;
        EXPECT_TRUE(p.value.grad().isfinite().all().item<bool>()) << p.name;
        EXPECT_TRUE(group.rank() == 0 || p.value.grad().abs().max().item<double>() == 0) << p.name;
      }
    });
  }
}

TEST(Encoders, ResidualBranchesStartAtZeroOrOne) {
  const struct {
    const char* name;
    const char* last;
    int blocks;
  } rows[] = {{"resnet34", ".bn2.weight", 16}, {"resnet50", ".bn3.weight", 16}, {"resnet101", ".bn3.weight", 33}};
  for (const auto& r : rows) {
    for (const bool zero : {true, false}) {
      Parameters parameters(1, at::kFloat);
      MakeEncoder({r.name, Stem::kSmall, 8, zero}, 3, 32, "", parameters);
      int last = 0;
      for (const NamedTensor& p : parameters.trained()) {
        if (p.value.dim() != 1 || !p.name.ends_with(".weight")) continue;
        const bool of_branch = p.name.ends_with(r.last);
        last += of_branch;
        EXPECT_TRUE(at::equal(p.value, at::full_like(p.value, of_branch && zero ? 0.0 : 1.0))) << p.name;
      }
      EXPECT_EQ(last, r.blocks) << r.name;
    }
  }
}

// torchvision's initialisation; 5 standard errors of a deviation are 5 / sqrt(2 n).
TEST(Encoders, FirstWeightsHaveTorchvisionsSpread) {
  Parameters resnet(1, at::kFloat), vit(1, at::kFloat);
  MakeEncoder({"resnet50", Stem::kStandard, 64}, 3, 224, "", resnet);
  MakeEncoder({"vit_ti16"}, 3, 224, "", vit);
  const struct {
    const Parameters& of;
    const char* name;
    double deviation;
  } rows[] = {
      {resnet, "conv1.weight", std::sqrt(2.0 / (64 * 49))},  // fan-out
      {resnet, "layer1.0.conv3.weight", std::sqrt(2.0 / 256)},
      {resnet, "layer3.2.conv2.weight", std::sqrt(2.0 / (256 * 9))},
      {vit, "conv_proj.weight", std::sqrt(1.0 / (3 * 256))},  // fan-in
      {vit, "encoder.pos_embedding", 0.02},
      {vit, "encoder.layers.encoder_layer_3.self_attention.in_proj_weight", std::sqrt(2.0 / (4 * 192))},  // Glorot
      {vit, "encoder.layers.encoder_layer_3.self_attention.out_proj.weight", std::sqrt(1.0 / (3 * 192))},
      {vit, "encoder.layers.encoder_layer_3.mlp.0.weight", std::sqrt(2.0 / (5 * 192))},
      {vit, "encoder.layers.encoder_layer_3.mlp.3.weight", std::sqrt(2.0 / (5 * 192))},
      {vit, "encoder.layers.encoder_layer_3.mlp.0.bias", 1e-6},
      {vit, "class_token", 0},
      {vit, "encoder.layers.encoder_layer_3.self_attention.in_proj_bias", 0},
  };
  for (const auto& r : rows) {
    const auto found = std::find_if(r.of.trained().begin(), r.of.trained().end(),
                                    [&](const NamedTensor& p) { return p.name == r.name; });
    ASSERT_NE(found, r.of.trained().end()) << r.name;
    const double n = static_cast<double>(found->value.numel());
    EXPECT_NEAR(found->value.std().item<double>(), r.deviation, 5 * r.deviation / std::sqrt(2 * n)) << r.name;
    EXPECT_NEAR(found->value.mean().item<double>(), 0, 5 * r.deviation / std::sqrt(n)) << r.name;
  }
}

TEST(Encoders, WhatTheyCannotReadIsRefused) {
  Parameters parameters(1, at::kFloat);
  for (const int size : {0, 8, 28, 33}) {
    EXPECT_THROW(MakeEncoder({"vit_ti16"}, 3, size, "a", parameters), std::invalid_argument) << size;
  }
  EXPECT_THROW(MakeEncoder({"resnet152"}, 3, 32, "b", parameters), std::invalid_argument);
  const auto vit = MakeEncoder({"vit_ti16"}, 3, 32, "c", parameters);
  EXPECT_THROW(vit->Evaluate(at::zeros({1, 3, 48, 32})), std::invalid_argument);
  EXPECT_THROW(vit->Evaluate(at::zeros({1, 3, 32, 48})), std::invalid_argument);
}

recipe::Recipe Small() {
  recipe::Recipe recipe;
  recipe.expander = {12, 10, 8};
  return recipe;
}

// Two views on top of each other through the network, and their embeddings likewise.
at::Tensor BothViews(Network& network, const at::Tensor& samples, Group& group) {
  return at::cat(network.Forward(samples.chunk(2), group));
}

TEST(Expander, WithoutNormIsLinearAndReluAlone) {
  recipe::Recipe recipe = Small();
  recipe.expander_norm = recipe::ExpanderNorm::kNone;
  Network network(recipe, at::kDouble);
  Tensors t;
  std::vector<std::string> names;
  for (const NamedTensor& p : network.parameters().all()) {
    t[p.name] = p.value.detach();
    if (p.name.starts_with("expander.")) names.push_back(p.name);
  }
  EXPECT_THAT(names,
              testing::ElementsAre("expander.0.linear.weight", "expander.0.linear.bias", "expander.1.linear.weight",
                                   "expander.1.linear.bias", "expander.2.linear.weight"));
  const at::Tensor images = Normal({6, 1, 13, 13}, 1);
  Group alone;
  Parameters same(recipe.seed, at::kDouble);
  at::Tensor x = MakeEncoder(recipe.encoder, 1, 32, "encoder.", same)->Forward(images, 2, alone);
  for (const std::string n : {"expander.0", "expander.1"}) {
    x = (x.matmul(t.at(n + ".linear.weight").t()) + t.at(n + ".linear.bias")).clamp_min(0);
  }
  EXPECT_LT(Distance(BothViews(network, images, alone), x.matmul(t.at("expander.2.linear.weight").t())), 1e-12);
}

TEST(Expander, IsCountedInAdvance) {
  for (const recipe::ExpanderNorm norm : {recipe::ExpanderNorm::kBatchNorm, recipe::ExpanderNorm::kNone}) {
    recipe::Recipe recipe = Small();
    recipe.expander_norm = norm;
    Network network(recipe);
    EXPECT_EQ(Numbers(network.parameters().trained()), recipe::EncoderParameters(recipe.encoder, 1, 28) +
                                                           recipe::ExpanderParameters(recipe::Views(recipe)[0], norm));
  }
}

// Embeddings of the same network, as they are and normalised.
at::Tensor Embeddings(recipe::EmbeddingNorm norm, const at::Tensor& images, Group& group) {
  recipe::Recipe recipe = Small();
  recipe.embedding_norm = norm;
  Network network(recipe, at::kDouble);
  return BothViews(network, images, group);
}

TEST(EmbeddingNorm, L2GivesEveryRowTheLengthOfRootD) {
  const at::Tensor images = Normal({6, 1, 13, 13}, 1);
  Group alone;
  const at::Tensor raw = Embeddings(recipe::EmbeddingNorm::kRaw, images, alone),
                   l2 = Embeddings(recipe::EmbeddingNorm::kL2, images, alone);
  for (int64_t i = 0; i < 6; ++i) {
    const double length = std::sqrt(raw[i].square().sum().item<double>());
    EXPECT_LT(Distance(l2[i], raw[i] * (std::sqrt(8.0) / length)), 1e-12) << "row " << i;
  }
}

TEST(EmbeddingNorm, StdCentresAndScalesEachDimensionOfEachView) {
  const at::Tensor images = at::cat({Normal({5, 1, 13, 13}, 1), 3 * Normal({5, 1, 13, 13}, 2) + 1});
  Group alone;
  const auto raw = Embeddings(recipe::EmbeddingNorm::kRaw, images, alone).chunk(2),
             got = Embeddings(recipe::EmbeddingNorm::kStd, images, alone).chunk(2);
  for (std::size_t v = 0; v < 2; ++v) {
    const at::Tensor centred = raw[v] - raw[v].mean(0, true);
    EXPECT_LT(Distance(got[v], centred / (centred.square().mean(0, true) + 1e-5).sqrt()), 1e-10) << "view " << v;
    EXPECT_LT(got[v].mean(0).abs().max().item<double>(), 1e-12);
  }
}

TEST(EmbeddingNorm, RanksTogetherEqualOneProcess) {
  const at::Tensor images = at::cat({Normal({5, 1, 13, 13}, 1), 3 * Normal({5, 1, 13, 13}, 2) + 1});
  const at::Tensor above = Normal({10, 8}, 3);
  for (const recipe::EmbeddingNorm norm : {recipe::EmbeddingNorm::kL2, recipe::EmbeddingNorm::kStd}) {
    recipe::Recipe recipe = Small();
    recipe.embedding_norm = norm;
    Network whole(recipe, at::kDouble);
    Group alone;
    const at::Tensor want = BothViews(whole, images, alone);
    (want * above).sum().backward();
    std::mutex mutex;
    std::vector<at::Tensor> sums(whole.parameters().trained().size());
    RunRanks(2, [&](Group& group) {
      Network network(recipe, at::kDouble);
      const int64_t first = group.rank() == 0 ? 0 : 2, rows = group.rank() == 0 ? 2 : 3;  // of each view
      const auto own = [&](const at::Tensor& x) {
        return at::cat({x.narrow(0, first, rows), x.narrow(0, 5 + first, rows)});
      };
      const at::Tensor got = BothViews(network, own(images), group);
      (got * own(above)).sum().backward();
      const std::scoped_lock lock(mutex);
      EXPECT_LT(Distance(got.detach(), own(want.detach())), 1e-10);
      for (std::size_t i = 0; i < sums.size(); ++i) {
        const at::Tensor& g = network.parameters().trained()[i].value.grad();
        sums[i] = sums[i].defined() ? sums[i] + g : g.clone();
      }
    });
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const NamedTensor& p = whole.parameters().trained()[i];
      EXPECT_LT(Distance(sums[i], p.value.grad()), 1e-9 * std::max(1.0, p.value.grad().abs().max().item<double>()))
          << p.name;
    }
  }
}

TEST(EmbeddingNorm, OfARowOfZerosIsFinite) {
  recipe::Recipe recipe = Small();
  recipe.expander = {8};
  recipe.embedding_norm = recipe::EmbeddingNorm::kL2;
  Network network(recipe, at::kDouble);
  {
    const at::NoGradGuard no_grad;
    for (const NamedTensor& p : network.parameters().trained()) {
      at::Tensor value = p.value;
      if (p.name.starts_with("expander.")) value.zero_();
    }
  }
  Group alone;
  const at::Tensor z = BothViews(network, Normal({4, 1, 13, 13}, 1), alone);
  EXPECT_EQ(z.abs().max().item<double>(), 0);
  (z * Normal({4, 8}, 2)).sum().backward();
  for (const NamedTensor& p : network.parameters().trained()) {
    EXPECT_TRUE(p.value.grad().isfinite().all().item<bool>()) << p.name;
  }
}

}  // namespace
}  // namespace vicreg::train
