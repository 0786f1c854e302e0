// Goal: networks are torchvision's, and batch norm over ranks is batch norm over all rows. Method: names and shapes
// from a written list; forward and backward against ATen's own operations; ranks as threads against one process.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "tests/train/ranks.h"
#include "worker/train/model/network.h"
#include "worker/train/model/sync_batch_norm.h"

namespace vicreg::train {
namespace {

using Shape = std::vector<int64_t>;
using NameAndShape = std::pair<std::string, Shape>;

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

// torchvision.models.resnet18().state_dict() without fc, for a given width and first convolution.
std::vector<NameAndShape> TorchvisionResNet18(int64_t width, int64_t channels, int64_t stem_side) {
  std::vector<NameAndShape> shapes;
  const auto conv_bn = [&](const std::string& conv, const std::string& bn, const Shape& shape) {
    shapes.emplace_back(conv + ".weight", shape);
    for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"})
      shapes.emplace_back(bn + part, Shape{shape[0]});
    shapes.emplace_back(bn + ".num_batches_tracked", Shape{});
  };
  conv_bn("conv1", "bn1", {width, channels, stem_side, stem_side});
  const struct {
    const char* block;
    int64_t in, out;  // in widths of the stem
    bool downsample;
  } blocks[] = {{"layer1.0", 1, 1, false}, {"layer1.1", 1, 1, false}, {"layer2.0", 1, 2, true},
                {"layer2.1", 2, 2, false}, {"layer3.0", 2, 4, true},  {"layer3.1", 4, 4, false},
                {"layer4.0", 4, 8, true},  {"layer4.1", 8, 8, false}};
  for (const auto& b : blocks) {
    const std::string name = b.block;
    conv_bn(name + ".conv1", name + ".bn1", {b.out * width, b.in * width, 3, 3});
    conv_bn(name + ".conv2", name + ".bn2", {b.out * width, b.out * width, 3, 3});
    if (b.downsample) conv_bn(name + ".downsample.0", name + ".downsample.1", {b.out * width, b.in * width, 1, 1});
  }
  return shapes;
}

TEST(ResNet18, HasTorchvisionsNamesShapesAndCount) {
  Parameters parameters(1, at::kFloat);
  const auto encoder = MakeEncoder({"resnet18", recipe::Stem::kStandard, 64}, 3, 32, "", parameters);
  EXPECT_EQ(Shapes(parameters.all()), TorchvisionResNet18(64, 3, 7));
  // torchvision states 11,689,512; its fc has 512 * 1000 + 1000.
  EXPECT_EQ(Numbers(parameters.trained()), 11'176'512);
  EXPECT_EQ(encoder->width(), 512);
}

TEST(ResNet18, WidthAndStemScaleAsTold) {
  Parameters parameters(1, at::kFloat);
  const auto encoder = MakeEncoder({"resnet18", recipe::Stem::kSmall, 16}, 1, 32, "", parameters);
  EXPECT_EQ(Shapes(parameters.all()), TorchvisionResNet18(16, 1, 3));
  EXPECT_EQ(encoder->width(), 128);
}

// torchvision's forward by name, on one view; running statistics move when training.
at::Tensor PlainResNet18(std::map<std::string, at::Tensor>& t, const at::Tensor& images, bool small, bool training) {
  const auto conv_bn = [&](const at::Tensor& x, const std::string& conv, const std::string& bn, int64_t stride,
                           int64_t padding) {
    return at::batch_norm(at::conv2d(x, t.at(conv + ".weight"), {}, stride, padding), t.at(bn + ".weight"),
                          t.at(bn + ".bias"), t.at(bn + ".running_mean"), t.at(bn + ".running_var"), training, 0.1,
                          1e-5, false);
  };
  at::Tensor x = conv_bn(images, "conv1", "bn1", small ? 1 : 2, small ? 1 : 3).relu();
  if (!small) x = at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
  for (int stage = 1; stage <= 4; ++stage) {
    for (int block = 0; block < 2; ++block) {
      const std::string name = "layer" + std::to_string(stage) + "." + std::to_string(block);
      const int64_t stride = stage > 1 && block == 0 ? 2 : 1;
      const at::Tensor shortcut = stride == 2 ? conv_bn(x, name + ".downsample.0", name + ".downsample.1", 2, 0) : x;
      const at::Tensor y = conv_bn(x, name + ".conv1", name + ".bn1", stride, 1).relu();
      x = (conv_bn(y, name + ".conv2", name + ".bn2", 1, 1) + shortcut).relu();
    }
  }
  return x.mean({2, 3});
}

TEST(ResNet18, ComputesWhatTorchvisionComputesOnEachView) {
  for (const recipe::Stem stem : {recipe::Stem::kSmall, recipe::Stem::kStandard}) {
    const bool small = stem == recipe::Stem::kSmall;
    SCOPED_TRACE(small ? "small stem" : "standard stem");
    Parameters parameters(1, at::kDouble);
    const auto encoder = MakeEncoder({"resnet18", stem, 4}, 3, 32, "", parameters);
    std::map<std::string, at::Tensor> plain;
    std::uint64_t seed = 0;
    for (const NamedTensor& p : parameters.all()) {
      // Away from the initial 0 of each block's last BN, so that both branches count.
      if (p.value.dim() == 1 && p.value.requires_grad())
        p.value.detach().add_(Normal(p.value.sizes(), ++seed).abs() * 0.5 + 0.1);
      plain[p.name] = p.value.detach().clone();
    }
    const at::Tensor images = Normal({6, 3, 33, 33}, 100);  // an odd side tells paddings apart
    Group alone;
    const at::Tensor got = encoder->Forward(images, 2, alone);
    const at::Tensor first = PlainResNet18(plain, images.narrow(0, 0, 3), small, true);
    const at::Tensor second = PlainResNet18(plain, images.narrow(0, 3, 3), small, true);
    EXPECT_EQ(got.sizes(), (Shape{6, 32}));
    EXPECT_LT(Distance(got, at::cat({first, second})), 1e-11);
    for (const NamedTensor& p : parameters.all()) {
      if (!p.value.is_floating_point()) continue;  // the counter
      EXPECT_LT(Distance(p.value.detach(), plain[p.name]), 1e-11) << p.name;
    }
    EXPECT_LT(Distance(encoder->Evaluate(images), PlainResNet18(plain, images, small, false)), 1e-11);
  }
}

TEST(ResNet18, EveryBlockStartsAsItsShortcut) {
  Parameters parameters(1, at::kFloat);
  MakeEncoder({"resnet18", recipe::Stem::kSmall, 8}, 3, 32, "", parameters);
  int zero = 0;
  for (const NamedTensor& p : parameters.trained()) {
    if (p.name.ends_with(".bn2.weight")) {
      zero += p.value.abs().max().item<float>() == 0;
    } else if (p.name.find("bn") != std::string::npos && p.name.ends_with(".weight")) {
      EXPECT_EQ(p.value.min().item<float>(), 1) << p.name;
    }
  }
  EXPECT_EQ(zero, 8);
}

// Two views on top of each other through the network, and their embeddings likewise.
at::Tensor BothViews(Network& network, const at::Tensor& samples, Group& group) {
  return at::cat(network.Forward(samples.chunk(2), group));
}

TEST(Network, TinyEncoderAndExpanderHaveTheirShapes) {
  recipe::Recipe recipe;
  recipe.encoder.name = "tiny";
  recipe.expander = {32, 24, 16};
  Network network(recipe);
  std::vector<NameAndShape> want;
  int64_t in = 1;
  for (const auto& [n, out] : {std::pair<std::string, int64_t>{"1", 24}, {"2", 48}, {"3", 96}, {"4", 192}}) {
    want.insert(want.end(), {{"encoder.conv" + n + ".weight", {out, in, 3, 3}},
                             {"encoder.bn" + n + ".weight", {out}},
                             {"encoder.bn" + n + ".bias", {out}}});
    in = out;
  }
  for (const auto& [n, out] : {std::pair<std::string, int64_t>{"0", 32}, {"1", 24}}) {
    want.insert(want.end(), {{"expander." + n + ".linear.weight", {out, in}},
                             {"expander." + n + ".linear.bias", {out}},
                             {"expander." + n + ".bn.weight", {out}},
                             {"expander." + n + ".bn.bias", {out}}});
    in = out;
  }
  want.push_back({"expander.2.linear.weight", {16, 24}});  // the last layer is linear alone
  EXPECT_EQ(Shapes(network.parameters().trained()), want);
  Group alone;
  EXPECT_EQ(BothViews(network, Normal({6, 1, 28, 28}, 1, at::kFloat), alone).sizes(), (Shape{6, 16}));
  EXPECT_EQ(network.Represent(Normal({5, 1, 28, 28}, 1, at::kFloat)).sizes(), (Shape{5, 192}));
  recipe.encoder.name = "resnet19";
  EXPECT_THROW(Network{recipe}, std::invalid_argument);
}

TEST(Network, ComputesItsLayersOnEachView) {
  recipe::Recipe recipe;
  recipe.expander = {12, 10, 8};
  Network network(recipe, at::kDouble);
  std::map<std::string, at::Tensor> t;
  for (const NamedTensor& p : network.parameters().all()) t[p.name] = p.value.detach().clone();
  const auto norm = [&](const at::Tensor& x, const std::string& bn) {
    return at::batch_norm(x, t.at(bn + ".weight"), t.at(bn + ".bias"), t.at(bn + ".running_mean"),
                          t.at(bn + ".running_var"), true, 0.1, 1e-5, false);
  };
  const auto plain = [&](at::Tensor x) {
    for (const std::string n : {"1", "2", "3", "4"}) {
      x = norm(at::conv2d(x, t.at("encoder.conv" + n + ".weight"), {}, n == "1" ? 1 : 2, 1), "encoder.bn" + n).relu();
    }
    x = x.mean({2, 3});
    for (const std::string n : {"expander.0", "expander.1"}) {
      x = norm(at::linear(x, t.at(n + ".linear.weight"), t.at(n + ".linear.bias")), n + ".bn").relu();
    }
    return at::linear(x, t.at("expander.2.linear.weight"));
  };
  const at::Tensor images = at::cat({Normal({5, 1, 13, 13}, 1), 3 * Normal({5, 1, 13, 13}, 2) + 1});
  Group alone;
  const at::Tensor got = BothViews(network, images, alone);
  const auto views = images.chunk(2);
  const at::Tensor first = plain(views[0]);
  EXPECT_LT(Distance(got, at::cat({first, plain(views[1])})), 1e-11);
  for (const NamedTensor& p : network.parameters().all()) {
    if (p.name.find("running") == std::string::npos) continue;
    EXPECT_LT(Distance(p.value, t.at(p.name)), 1e-11) << p.name;
  }
}

TEST(Network, FirstWeightsDependOnSeedAndNameAlone) {
  recipe::Recipe recipe;
  recipe.expander = {8, 8};
  const Network first(recipe), again(recipe), wide(recipe, at::kDouble);
  recipe.expander = {16, 4, 4};
  const Network other_expander(recipe);
  recipe.seed = 2;
  const Network other_seed(recipe);
  for (std::size_t i = 0; i < first.parameters().all().size(); ++i) {
    EXPECT_TRUE(at::equal(first.parameters().all()[i].value, again.parameters().all()[i].value));
    EXPECT_TRUE(
        at::equal(first.parameters().all()[i].value.to(at::kDouble), wide.parameters().all()[i].value.to(at::kDouble)));
  }
  const at::Tensor conv = first.parameters().trained()[0].value.detach();
  EXPECT_TRUE(at::equal(conv, other_expander.parameters().trained()[0].value));
  EXPECT_FALSE(at::equal(conv, other_seed.parameters().trained()[0].value));
  // He et al., fan-out: conv4 of `tiny` has deviation sqrt(2 / (192 * 9)) = 0.0340 over 165,888 values.
  const NamedTensor& conv4 = first.parameters().trained()[9];
  ASSERT_EQ(conv4.name, "encoder.conv4.weight");
  EXPECT_NEAR(conv4.value.std().item<double>(), std::sqrt(2.0 / (192 * 9)), 0.0003);
}

// One batch norm layer over some ranks, each passing `views` batches of its rows on top of each other.
struct NormCase {
  const char* what;
  Shape sample;               // of one row: {C}, {C, L} or {C, H, W}
  std::vector<int64_t> rows;  // of each rank and view
  int views;
  Activation activation = Activation::kNone;
};

struct NormErrors {
  double output = 0, input_gradient = 0, weight_gradient = 0, buffers = 0;
  double worst() const { return std::max({output, input_gradient, weight_gradient, buffers}); }
};

at::Tensor Rows(const at::Tensor& view, const std::vector<int64_t>& rows, std::size_t rank) {
  int64_t first = 0;
  for (std::size_t r = 0; r < rank; ++r) first += rows[r];
  return view.narrow(0, first, rows[rank]);
}

// Against at::batch_norm in one process, view after view. `synchronised` false: each rank takes its own statistics.
NormErrors CompareNorm(const NormCase& c, bool synchronised) {
  int64_t n = 0;
  for (const int64_t r : c.rows) n += r;
  const int64_t channels = c.sample[0];
  Shape shape = {n};
  shape.insert(shape.end(), c.sample.begin(), c.sample.end());
  const at::Tensor weight = Normal({channels}, 1), bias = Normal({channels}, 2);
  std::vector<at::Tensor> x, above, out, dx;
  const at::Tensor plain_weight = weight.clone().set_requires_grad(true),
                   plain_bias = bias.clone().set_requires_grad(true);
  const at::Tensor mean = at::zeros({channels}, at::kDouble), variance = at::ones({channels}, at::kDouble);
  for (int v = 0; v < c.views; ++v) {
    const auto seed = static_cast<std::uint64_t>(10 * v);
    x.push_back((Normal(shape, seed + 3) * (v + 1) + 5 * v + 2).set_requires_grad(true));
    above.push_back(Normal(shape, seed + 4));
    out.push_back(at::batch_norm(x.back(), plain_weight, plain_bias, mean, variance, true, 0.1, 1e-5, false));
    if (c.activation == Activation::kRelu) out.back() = out.back().relu();
    (out.back() * above.back()).sum().backward();
    dx.push_back(x.back().grad());
  }

  NormErrors errors;
  std::mutex mutex;
  at::Tensor weight_gradient = at::zeros_like(weight), bias_gradient = at::zeros_like(bias);
  const auto views_of = [&](const std::vector<at::Tensor>& views, std::size_t rank) {
    std::vector<at::Tensor> own;
    for (const at::Tensor& view : views) own.push_back(Rows(view.detach(), c.rows, rank));
    return at::cat(own);
  };
  RunRanks(static_cast<int>(c.rows.size()), [&](Group& group) {
    const auto rank = static_cast<std::size_t>(group.rank());
    Parameters parameters(1, at::kDouble);
    SyncBatchNorm norm(parameters, "bn", channels);
    parameters.all()[0].value.detach().copy_(weight);
    parameters.all()[1].value.detach().copy_(bias);
    const at::Tensor own = views_of(x, rank).set_requires_grad(true);
    Group alone;
    const at::Tensor got = norm.Forward(own, c.views, synchronised ? group : alone, c.activation);
    (got * views_of(above, rank)).sum().backward();
    const std::scoped_lock lock(mutex);
    const auto add = [](double& worst, const at::Tensor& a, const at::Tensor& b) {
      if (a.numel() > 0) worst = std::max(worst, Distance(a, b) / std::max(1.0, b.abs().max().item<double>()));
    };
    add(errors.output, got.detach(), views_of(out, rank));
    add(errors.input_gradient, own.grad(), views_of(dx, rank));
    add(errors.buffers, parameters.all()[2].value, mean);
    add(errors.buffers, parameters.all()[3].value, variance);
    EXPECT_EQ(parameters.all()[4].value.item<int64_t>(), c.views);
    weight_gradient += parameters.all()[0].value.grad();
    bias_gradient += parameters.all()[1].value.grad();
  });
  errors.weight_gradient =
      std::max(Distance(weight_gradient, plain_weight.grad()), Distance(bias_gradient, plain_bias.grad()));
  return errors;
}

TEST(SyncBatchNorm, RanksTogetherEqualOneProcess) {
  const NormCase cases[] = {
      {"one rank", {3, 4, 4}, {6}, 1},
      {"even rows", {3, 4, 4}, {3, 3}, 2},
      {"uneven rows", {3, 5, 2}, {1, 6}, 2},
      {"three ranks, one empty", {3, 2, 2}, {4, 0, 3}, 2},
      {"vectors, one row on a rank", {7}, {1, 2, 5}, 2},
      {"three views", {7}, {2, 3}, 3},
      {"waveforms", {3, 9}, {2, 1}, 2},
      {"rectified", {3, 5, 2}, {1, 6}, 2, Activation::kRelu},
      {"rectified, one empty", {7}, {4, 0, 3}, 2, Activation::kRelu},
      {"more columns and rows than one pass sums", {600, 5, 6}, {5, 4}, 2, Activation::kRelu},
  };
  for (const NormCase& c : cases) {
    SCOPED_TRACE(c.what);
    const NormErrors errors = CompareNorm(c, true);
    EXPECT_LT(errors.output, 1e-12);
    EXPECT_LT(errors.input_gradient, 1e-12);
    EXPECT_LT(errors.weight_gradient, 1e-11);
    EXPECT_LT(errors.buffers, 1e-12);
  }
}

// Negative control: unsynchronised statistics must not pass the same comparison.
TEST(SyncBatchNorm, StatisticsOfOwnRowsAreFound) {
  const NormErrors errors = CompareNorm({"", {3, 4, 4}, {3, 5}, 2}, false);
  EXPECT_GT(errors.output, 1e-3);
  EXPECT_GT(errors.input_gradient, 1e-3);
  EXPECT_GT(errors.buffers, 1e-3);
}

TEST(SyncBatchNorm, FloatKeepsSinglePrecisionFarFromZero) {
  const at::Tensor x = Normal({32, 4, 3, 3}, 1, at::kFloat) + 1000;
  Parameters parameters(1, at::kFloat);
  SyncBatchNorm norm(parameters, "bn", 4);
  Group alone;
  const at::Tensor wide = x.to(at::kDouble), none;
  const at::Tensor want = at::batch_norm(wide, none, none, none, none, true, 0.1, 1e-5, false);
  // The sum of two numbers near 1000 is known to 1000 * 2^-23 = 1.2e-4; a variance from E[x^2] - mean^2 would be off by
  // 0.1.
  EXPECT_LT(Distance(norm.Forward(x, 1, alone).detach().to(at::kDouble), want), 3e-4);
}

}  // namespace
}  // namespace vicreg::train
