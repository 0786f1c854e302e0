// Goal: the passes that batch norm is made of compute the same whatever type, layout and number of threads, and hide
// nothing. Method: against the formulas in double precision, by ATen; the types of compiled loops and one without.

#include "worker/train/model/channel_passes.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace vicreg::train {
namespace {

at::Tensor Normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(seed));
}

// [V, n, C] of [V * n, C, ...], in double precision.
at::Tensor Rows(const at::Tensor& x, int64_t views) {
  const int64_t positions = x.dim() > 2 ? x.numel() / (x.size(0) * x.size(1)) : 1;
  return x.to(at::kDouble).reshape({x.size(0), x.size(1), positions}).transpose(1, 2).reshape({views, -1, x.size(1)});
}

double Error(const at::Tensor& got, const at::Tensor& want) {
  return ((got.to(at::kDouble) - want).abs().max() / want.abs().max()).item<double>();
}

struct Inputs {
  at::Tensor x, dy, mean, scale, shift, a, b, c;

  Inputs(at::IntArrayRef shape, int64_t views, at::ScalarType type)
      : x(ChannelsInnermost((Normal(shape, 1) * 2 + 3).to(type))), dy(ChannelsInnermost(Normal(shape, 2).to(type))) {
    std::uint64_t seed = 3;
    for (at::Tensor* values : {&mean, &scale, &shift, &a, &b, &c}) *values = Normal({views, shape[1]}, seed++);
    mean += 3;
    shift -= scale * mean;  // so that about half of the values are above 0
  }
};

TEST(ChannelPasses, EveryTypeEqualsTheFormulas) {
  constexpr int64_t kViews = 2;
  const struct {
    at::ScalarType type;
    double sums, values;  // relative errors: of what fp64 holds, and after one rounding to the type
  } types[] = {
      {at::kDouble, 1e-13, 1e-13}, {at::kFloat, 2e-6, 1e-6}, {at::kBFloat16, 1e-5, 1e-2}, {at::kHalf, 1e-5, 2e-3}};
  const std::vector<std::vector<int64_t>> shapes = {{6, 5}, {300, 700}, {4, 3, 11}, {4, 6, 9, 7}, {130, 24, 4, 4}};
  for (const auto& t : types) {
    for (const auto& shape : shapes) {
      for (const Activation activation : {Activation::kNone, Activation::kRelu}) {
        SCOPED_TRACE(std::string(at::toString(t.type)) + ", " + std::to_string(shape.size()) + " dimensions, " +
                     std::to_string(shape[1]) + " channels" + (activation == Activation::kRelu ? ", rectified" : ""));
        const Inputs in(shape, kViews, t.type);
        const at::Tensor x = Rows(in.x, kViews), dy = Rows(in.dy, kViews);
        const auto per_row = [](const at::Tensor& values) { return values.unsqueeze(1); };
        const at::Tensor y = x * per_row(in.scale) + per_row(in.shift), off = x - per_row(in.mean);
        const bool relu = activation == Activation::kRelu;
        // Where y is as good as 0, rounding decides whether a gradient passes: not compared.
        const at::Tensor sure = relu ? (y.abs() > 1e-5).to(at::kDouble) : at::ones_like(y);
        const at::Tensor g = relu ? dy * (y > 0) : dy;
        const ChannelAffine forward{in.scale, in.shift, activation};

        const at::Tensor moments = ChannelMoments(in.x, kViews);
        EXPECT_EQ(moments.scalar_type(), at::kDouble);
        EXPECT_LT(Error(moments[0], x.mean(1)), t.sums);
        EXPECT_LT(Error(moments[1], (x - x.mean(1, true)).square().sum(1)), t.sums);

        const at::Tensor out = Apply(forward, in.x);
        EXPECT_EQ(out.strides(), in.x.strides());
        EXPECT_EQ(out.scalar_type(), t.type);
        EXPECT_LT(Error(Rows(out, kViews), relu ? y.relu() : y), t.values);

        const at::Tensor sums = GradientSums(in.dy, in.x, in.mean, forward);
        EXPECT_LT(Error(sums[0], g.sum(1)), 10 * t.sums);
        EXPECT_LT(Error(sums[1], (g * off).sum(1)), 10 * t.sums);

        const at::Tensor dx = InputGradient({in.a, in.b, in.c}, in.dy, in.x, in.mean, forward);
        EXPECT_EQ(dx.strides(), in.x.strides());
        EXPECT_LT(Error(Rows(dx, kViews) * sure, (per_row(in.a) * g + per_row(in.b) * off + per_row(in.c)) * sure),
                  t.values);
      }
    }
  }
}

TEST(ChannelPasses, ThreadsDoNotChangeABit) {
  const Inputs in({37, 48, 13, 11}, 1, at::kFloat);
  const ChannelAffine forward{in.scale, in.shift, Activation::kRelu};
  std::vector<at::Tensor> results[2];
  const int before = at::get_num_threads();
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    results[threads / 2] = {ChannelMoments(in.x, 1), GradientSums(in.dy, in.x, in.mean, forward)};
  }
  at::set_num_threads(before);
  for (std::size_t i = 0; i < results[0].size(); ++i) EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << i;
}

// The trainer tells a run that diverged by its loss: no layer may turn NaN into a number.
TEST(ChannelPasses, RectifiedNanStaysNan) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf}) {
    at::Tensor x = at::ones({4, 16}, type);
    x[1][3] = std::numeric_limits<double>::quiet_NaN();
    const at::Tensor one = at::ones({1, 16}, at::kDouble), minus = at::full({1, 16}, -2.0, at::kDouble);
    const at::Tensor out = Apply({one, minus, Activation::kRelu}, x);
    EXPECT_TRUE(std::isnan(out[1][3].item<double>()));
    EXPECT_EQ(out[0].abs().max().item<double>(), 0);
    EXPECT_TRUE(std::isnan(ChannelMoments(x, 1)[1][0][3].item<double>()));
  }
}

TEST(ChannelPasses, LayoutIsTurnedOnceAndOnlyWhereNeeded) {
  const at::Tensor images = Normal({2, 3, 5, 4}, 1), waves = Normal({2, 3, 5}, 2), vectors = Normal({2, 3}, 3);
  for (const at::Tensor& x : {images, waves, vectors}) {
    const at::Tensor turned = ChannelsInnermost(x);
    EXPECT_TRUE(at::equal(turned, x));
    EXPECT_EQ(turned.stride(1), 1);
    EXPECT_TRUE(ChannelsInnermost(turned).is_same(turned) || turned.data_ptr() == ChannelsInnermost(turned).data_ptr());
  }
}

}  // namespace
}  // namespace vicreg::train
