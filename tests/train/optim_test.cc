// Goal: optimizers and schedule are what they are called, however many parameters one call updates, and a checkpoint
// holds all of an optimizer. Method: updates against plain arithmetic, torch::optim and a loop over single parameters;
// state through the checkpoint's format into a new optimizer.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "worker/train/checkpoint/safetensors.h"
#include "worker/train/optim/loss_scaler.h"
#include "worker/train/optim/optimizer.h"

namespace vicreg::train {
namespace {

using recipe::OptimizerKind;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

at::Tensor Normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return at::empty(shape, at::kDouble).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(seed)).to(dtype);
}

double Distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

NamedTensor Parameter(const std::string& name, const at::Tensor& value) {
  return {name, value.clone().set_requires_grad(true)};
}

std::vector<double> Values(const at::Tensor& t) {
  const at::Tensor flat = t.detach().contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// |p| = 5, |g| = 2, so g is scaled by 0.001 * 5 / 2 = 0.0025 to (0, 0.005), and p moves by 2 * 0.005; the next step
// carries 0.9 * 0.005 of it on, and adds 0.001 * |p|/|g| * g with |p| = sqrt(9 + 3.99^2). A bias moves by its gradient.
TEST(Lars, FirstTwoStepsByHand) {
  const NamedTensor matrix = Parameter("w", at::tensor({3.0, 4.0}, at::kDouble).view({1, 2})),
                    bias = Parameter("b", at::tensor({1.0}, at::kDouble));
  const auto lars = MakeOptimizer({OptimizerKind::kLars, 0, 0}, {matrix, bias});
  matrix.value.mutable_grad() = at::tensor({0.0, 2.0}, at::kDouble).view({1, 2});
  bias.value.mutable_grad() = at::tensor({0.5}, at::kDouble);
  lars->Step(2, 1);
  EXPECT_DOUBLE_EQ(Values(matrix.value)[0], 3);
  EXPECT_DOUBLE_EQ(Values(matrix.value)[1], 3.99);
  EXPECT_DOUBLE_EQ(Values(bias.value)[0], 0);
  lars->Step(2, 2);
  EXPECT_DOUBLE_EQ(Values(matrix.value)[1], 3.99 - 2 * (0.9 * 0.005 + 0.001 * std::sqrt(9 + 3.99 * 3.99)));
  EXPECT_DOUBLE_EQ(Values(bias.value)[0], -2 * (0.9 * 0.5 + 0.5));
}

// The authors' LARS in plain numbers. `matrix`: more than one dimension.
struct PlainLars {
  std::vector<double> p, m;
  bool matrix;
  void Step(std::vector<double> g, double rate, double decay) {
    m.resize(p.size());
    if (matrix) {
      double pp = 0, gg = 0;
      for (std::size_t i = 0; i < p.size(); ++i) {
        g[i] += decay * p[i];
        pp += p[i] * p[i];
        gg += g[i] * g[i];
      }
      const double q = pp > 0 && gg > 0 ? 0.001 * std::sqrt(pp) / std::sqrt(gg) : 1;
      for (double& value : g) value *= q;
    }
    for (std::size_t i = 0; i < p.size(); ++i) p[i] -= rate * (m[i] = 0.9 * m[i] + g[i]);
  }
};

TEST(Lars, FiveStepsEqualPlainArithmetic) {
  const double decay = 0.1;
  const std::vector<NamedTensor> parameters = {
      Parameter("linear", Normal({3, 4}, 1)), Parameter("conv", Normal({2, 3, 3, 3}, 2)),
      Parameter("bias", Normal({5}, 3)), Parameter("zero", at::zeros({2, 2}, at::kDouble)),
      Parameter("still", at::zeros({2, 2}, at::kDouble))};
  std::vector<PlainLars> plain;
  for (const NamedTensor& p : parameters) plain.push_back({Values(p.value), {}, p.value.dim() != 1});
  const auto lars = MakeOptimizer({OptimizerKind::kLars, 0, decay}, parameters);
  for (int step = 1; step <= 5; ++step) {
    const double rate = 0.3 * step;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor g = Normal(parameters[i].value.sizes(), static_cast<std::uint64_t>(100 * step) + i);
      if (parameters[i].name == "still") g.zero_();  // neither norm is above 0: nothing to scale, nothing to divide by
      parameters[i].value.mutable_grad() = g;
      plain[i].Step(Values(g), rate, decay);
    }
    lars->Step(rate, step);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const std::vector<double> got = Values(parameters[i].value);
      for (std::size_t j = 0; j < got.size(); ++j) {
        EXPECT_NEAR(got[j], plain[i].p[j], 1e-13) << parameters[i].name << "[" << j << "] after step " << step;
      }
    }
  }
  EXPECT_EQ(lars->State()[0].name, "linear.momentum");
  EXPECT_THAT(Values(lars->State()[2].value), Pointwise(DoubleNear(1e-13), plain[2].m));
}

// |p| = 5, |g| = 2, eta = 0.02, wd = 0.1: q = 0.02 * 5 / (2 + 0.5 + 1e-8) = 0.04 without the 1e-8; g + wd p =
// (0.3, 2.4).
TEST(Larc, FirstStepByHand) {
  const struct {
    const char* what;
    bool clip;
    double rate, moved;  // share of g + wd p that p moves by
  } rows[] = {
      {"not clipped: rate * q", false, 2, 2 * 0.04},
      {"rate above q: q", true, 2, 0.04},
      {"rate below q: the rate", true, 0.01, 0.01},
      {"rate 0, clipped", true, 0, 0},
      {"rate 0", false, 0, 0},
  };
  for (const auto& r : rows) {
    const NamedTensor p = Parameter("w", at::tensor({3.0, 4.0}, at::kDouble).view({1, 2}));
    const auto larc = MakeOptimizer({OptimizerKind::kLarc, 0, 0.1, 0.02, r.clip}, {p});
    p.value.mutable_grad() = at::tensor({0.0, 2.0}, at::kDouble).view({1, 2});
    larc->Step(r.rate, 1);
    EXPECT_NEAR(Values(p.value)[0], 3 - r.moved * 0.3, 1e-9) << r.what;
    EXPECT_NEAR(Values(p.value)[1], 4 - r.moved * 2.4, 1e-9) << r.what;
    EXPECT_THAT(Values(p.value.grad()), ElementsAre(0, 2)) << "the gradient stays as it was";
  }
}

// solo-learn's variant in plain numbers.
struct PlainLarc {
  std::vector<double> p, m;
  bool matrix;
  void Step(std::vector<double> g, double rate, double decay, double eta, bool clip) {
    m.resize(p.size());
    double pp = 0, gg = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      pp += p[i] * p[i];
      gg += g[i] * g[i];
    }
    if (matrix && pp != 0 && gg != 0) {
      double q = eta * std::sqrt(pp) / (std::sqrt(gg) + decay * std::sqrt(pp) + 1e-8);
      if (clip && q / rate > 1) {
        q = 1;
      } else if (clip) {
        q = q / rate;
      }
      for (std::size_t i = 0; i < p.size(); ++i) g[i] = q * (g[i] + decay * p[i]);
    }
    for (std::size_t i = 0; i < p.size(); ++i) p[i] -= rate * (m[i] = 0.9 * m[i] + g[i]);
  }
};

TEST(Larc, FiveStepsEqualPlainArithmetic) {
  for (const bool clip : {true, false}) {
    SCOPED_TRACE(clip ? "clipped" : "not clipped");
    const double decay = 0.1, eta = 0.02;
    const std::vector<NamedTensor> parameters = {
        Parameter("linear", Normal({3, 4}, 1)), Parameter("large", 100 * Normal({2, 3, 3, 3}, 2)),
        Parameter("bias", Normal({5}, 3)),      Parameter("zero", at::zeros({2, 2}, at::kDouble)),
        Parameter("still", Normal({2, 2}, 4)),  Parameter("nothing", at::zeros({2, 2}, at::kDouble))};
    std::vector<PlainLarc> plain;
    for (const NamedTensor& p : parameters) plain.push_back({Values(p.value), {}, p.value.dim() != 1});
    const auto larc = MakeOptimizer({OptimizerKind::kLarc, 0, decay, eta, clip}, parameters);
    for (int step = 1; step <= 5; ++step) {
      const double rate = 0.05 * (step - 1);  // the warm-up starts at 0
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        at::Tensor g = Normal(parameters[i].value.sizes(), static_cast<std::uint64_t>(100 * step) + i);
        // No direction: not decayed either. Momentum moves it on once it has had one.
        if (parameters[i].name == "nothing" || (parameters[i].name == "still" && step != 2)) g.zero_();
        parameters[i].value.mutable_grad() = g;
        plain[i].Step(Values(g), rate, decay, eta, clip);
      }
      larc->Step(rate, step);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const std::vector<double> got = Values(parameters[i].value);
        for (std::size_t j = 0; j < got.size(); ++j) {
          EXPECT_NEAR(got[j], plain[i].p[j], 1e-12 * std::max(1.0, std::abs(got[j])))
              << parameters[i].name << "[" << j << "] after step " << step;
        }
      }
    }
    EXPECT_EQ(larc->State()[0].name, "linear.momentum");
    EXPECT_NEAR(Values(larc->State()[2].value)[0], plain[2].m[0], 1e-13);
  }
}

// p = 2, g = 0.5, wd = 0.1: m = 0.7, p = 2 - 0.1 * 0.7 = 1.93; then m = 0.63 + 0.5 + 0.193 = 1.323, p = 1.93 - 0.1323.
// A bias is decayed as everything else.
TEST(Sgd, FirstTwoStepsByHand) {
  const NamedTensor matrix = Parameter("w", at::full({1, 1}, 2.0, at::kDouble)),
                    bias = Parameter("b", at::full({1}, 2.0, at::kDouble));
  const auto sgd = MakeOptimizer({OptimizerKind::kSgd, 0, 0.1}, {matrix, bias});
  for (int step = 1; step <= 2; ++step) {
    for (const NamedTensor& p : {matrix, bias}) {
      p.value.mutable_grad() = at::full_like(p.value.detach(), 0.5);
    }
    sgd->Step(0.1, step);
    for (const NamedTensor& p : {matrix, bias}) {
      EXPECT_NEAR(Values(p.value)[0], step == 1 ? 1.93 : 1.93 - 0.1323, 1e-15) << p.name;
    }
  }
}

TEST(Sgd, FiveStepsEqualTorchs) {
  const at::Tensor start[] = {Normal({3, 4}, 1), Normal({5}, 2), at::zeros({2, 2}, at::kDouble)};
  std::vector<NamedTensor> ours;
  std::vector<at::Tensor> theirs;
  for (const at::Tensor& t : start) {
    ours.push_back(Parameter("p" + std::to_string(ours.size()), t));
    theirs.push_back(t.clone().set_requires_grad(true));
  }
  const auto sgd = MakeOptimizer({OptimizerKind::kSgd, 0, 0.05}, ours);
  torch::optim::SGD torchs(theirs, torch::optim::SGDOptions(1).momentum(0.9).weight_decay(0.05));
  for (int step = 1; step <= 5; ++step) {
    const double rate = 0.1 * step;
    static_cast<torch::optim::SGDOptions&>(torchs.param_groups()[0].options()).lr(rate);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const at::Tensor g = Normal(start[i].sizes(), static_cast<std::uint64_t>(100 * step) + i);
      ours[i].value.mutable_grad() = g.clone();
      theirs[i].mutable_grad() = g.clone();
    }
    sgd->Step(rate, step);
    torchs.step();
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_LT(Distance(ours[i].value.detach(), theirs[i].detach()), 1e-13) << ours[i].name << " after step " << step;
    }
  }
}

TEST(AdamW, FiveStepsEqualTorchs) {
  const at::Tensor start[] = {Normal({3, 4}, 1), Normal({5}, 2)};
  const std::vector<NamedTensor> ours = {Parameter("w", start[0]), Parameter("b", start[1])};
  const std::vector<at::Tensor> theirs = {start[0].clone().set_requires_grad(true),
                                          start[1].clone().set_requires_grad(true)};
  const auto adamw = MakeOptimizer({OptimizerKind::kAdamW, 0, 0.05}, ours);
  torch::optim::AdamW torchs(theirs, torch::optim::AdamWOptions().betas({0.9, 0.999}).eps(1e-8).weight_decay(0.05));
  for (int step = 1; step <= 5; ++step) {
    const double rate = 0.01 * step;
    static_cast<torch::optim::AdamWOptions&>(torchs.param_groups()[0].options()).lr(rate);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const at::Tensor g = Normal(start[i].sizes(), static_cast<std::uint64_t>(100 * step) + i);
      ours[i].value.mutable_grad() = g.clone();
      theirs[i].mutable_grad() = g.clone();
    }
    adamw->Step(rate, step);
    torchs.step();
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_LT(Distance(ours[i].value.detach(), theirs[i].detach()), 1e-14) << ours[i].name << " after step " << step;
    }
  }
  const std::vector<NamedTensor> state = adamw->State();
  ASSERT_EQ(state.size(), 4u);
  EXPECT_EQ(state[0].name, "w.exp_avg");
  EXPECT_EQ(state[3].name, "b.exp_avg_sq");
  EXPECT_EQ(state[3].value.sizes(), start[1].sizes());
  adamw->ZeroGrad();
  EXPECT_FALSE(ours[0].value.grad().defined());
}

const recipe::Optimizer kAll[] = {{OptimizerKind::kAdamW, 0, 0.05},
                                  {OptimizerKind::kSgd, 0, 0.05},
                                  {OptimizerKind::kLars, 0, 0.05},
                                  {OptimizerKind::kLarc, 0, 0.05, 0.02, true},
                                  {OptimizerKind::kLarc, 0, 0.05, 0.02, false}};

std::string NameOf(const recipe::Optimizer& options) {
  const char* names[] = {"adamw", "lars", "larc", "sgd"};
  return names[static_cast<int>(options.kind)] + std::string(options.clip ? "" : ", not clipped");
}

// One parameter after the other, one operation after the other.
void LoopStep(const recipe::Optimizer& o, at::Tensor p, at::Tensor& m, at::Tensor& v, double rate, int step) {
  const at::NoGradGuard no_grad;
  at::Tensor g = p.grad().clone();
  if (o.kind == OptimizerKind::kAdamW) {
    p.mul_(1 - rate * o.weight_decay);
    m.lerp_(g, 1 - 0.9);
    v.mul_(0.999).addcmul_(g, g, 1 - 0.999);
    p.addcdiv_(m, (v.sqrt() / std::sqrt(1 - std::pow(0.999, step))).add_(1e-8), -rate / (1 - std::pow(0.9, step)));
    return;
  }
  const double pn = p.norm().item<double>(), gn = g.norm().item<double>();
  if (o.kind == OptimizerKind::kSgd || p.dim() != 1) g.add_(p, o.weight_decay);
  if (o.kind == OptimizerKind::kLars && p.dim() != 1) g.mul_(0.001 * pn / g.norm().item<double>());
  if (o.kind == OptimizerKind::kLarc && p.dim() != 1) {
    const double q = o.eta * pn / (gn + o.weight_decay * pn + 1e-8);
    g.mul_(o.clip ? std::min(q / rate, 1.0) : q);
  }
  m.mul_(0.9).add_(g);
  p.sub_(m, rate);
}

TEST(Optimizers, UpdatingManyAtATimeEqualsOneAfterTheOther) {
  // The two large ones fill more than one bucket.
  const std::vector<std::vector<int64_t>> shapes = {{64, 3, 3, 3}, {64}, {2048, 1024}, {2048},
                                                    {300, 10},     {},   {2048, 1100}, {1}};
  const auto draw = [&](std::uint64_t seed) {
    std::vector<at::Tensor> drawn;
    for (const auto& shape : shapes) {
      drawn.push_back(at::empty(shape, at::kFloat).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(++seed)));
    }
    return drawn;
  };
  const std::vector<at::Tensor> starts = draw(0), gradients = draw(100);
  for (const recipe::Optimizer& options : kAll) {
    SCOPED_TRACE(NameOf(options));
    std::vector<NamedTensor> many, single;
    std::vector<std::unique_ptr<Optimizer>> of_single;
    std::vector<at::Tensor> plain, m, v;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const at::Tensor& start = starts[i];
      many.push_back(Parameter("p" + std::to_string(i), start));
      single.push_back(Parameter("p" + std::to_string(i), start));
      of_single.push_back(MakeOptimizer(options, {single[i]}));
      plain.push_back(start.clone().set_requires_grad(true));
      m.push_back(at::zeros_like(start));
      v.push_back(at::zeros_like(start));
    }
    const auto optimizer = MakeOptimizer(options, many);
    for (int step = 1; step <= 2; ++step) {
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const at::Tensor g =
            at::empty(shapes[i], at::kFloat).normal_(0, 1, at::make_generator<at::CPUGeneratorImpl>(100 * step + i));
        for (const at::Tensor& p : {many[i].value, single[i].value, plain[i]}) p.mutable_grad() = g;
        of_single[i]->Step(0.1 * step, step);
        LoopStep(options, plain[i], m[i], v[i], 0.1 * step, step);
      }
      optimizer->Step(0.1 * step, step);
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        EXPECT_TRUE(at::equal(many[i].value, single[i].value)) << many[i].name << " after step " << step;
        EXPECT_LT(Distance(many[i].value.detach(), plain[i].detach()), 4e-6) << many[i].name << " after step " << step;
      }
    }
    const std::size_t slots = options.kind == OptimizerKind::kAdamW ? 2 : 1;
    ASSERT_EQ(optimizer->State().size(), slots * shapes.size());
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      EXPECT_EQ(optimizer->State()[slots * i].name, many[i].name + (slots == 2 ? ".exp_avg" : ".momentum"));
      EXPECT_LT(Distance(optimizer->State()[slots * i].value, m[i]), 4e-6) << many[i].name;
    }
  }
}

TEST(Optimizers, ResumedFromTheirStateGoOnBitForBit) {
  for (const recipe::Optimizer& options : kAll) {
    SCOPED_TRACE(NameOf(options));
    const auto network = [] {
      return std::vector<NamedTensor>{Parameter("w", Normal({5, 4}, 1)), Parameter("b", Normal({5}, 2)),
                                      Parameter("c", Normal({2, 3, 3, 3}, 3))};
    };
    const auto train = [](Optimizer& optimizer, const std::vector<NamedTensor>& parameters, int from, int to) {
      for (int step = from; step <= to; ++step) {
        for (std::size_t i = 0; i < parameters.size(); ++i) {
          parameters[i].value.mutable_grad() =
              Normal(parameters[i].value.sizes(), static_cast<std::uint64_t>(100 * step) + i);
        }
        optimizer.Step(0.1 * step, step);
      }
    };
    const std::vector<NamedTensor> whole = network(), stopped = network(), resumed = network(), forgetful = network();
    const auto first = MakeOptimizer(options, whole), second = MakeOptimizer(options, stopped),
               third = MakeOptimizer(options, resumed), fourth = MakeOptimizer(options, forgetful);
    train(*first, whole, 1, 6);
    train(*second, stopped, 1, 3);
    {
      const at::NoGradGuard no_grad;
      CopyInto(stopped, resumed);
      CopyInto(stopped, forgetful);
      CopyInto(ParseSafetensors(SafetensorsBytes(second->State())), third->State());
    }
    train(*third, resumed, 4, 6);
    train(*fourth, forgetful, 4, 6);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      EXPECT_TRUE(at::equal(whole[i].value, resumed[i].value)) << whole[i].name;
      EXPECT_FALSE(at::equal(whole[i].value, forgetful[i].value)) << whole[i].name << ": state does not matter?";
    }
  }
}

TEST(Optimizers, GradientNormIsThatOfOneLongVector) {
  const std::vector<NamedTensor> parameters = {Parameter("w", at::zeros({2, 2}, at::kFloat)),
                                               Parameter("b", at::zeros({3}, at::kFloat))};
  const auto optimizer = MakeOptimizer({}, parameters);
  parameters[0].value.mutable_grad() = at::full({2, 2}, 3.0, at::kFloat);
  parameters[1].value.mutable_grad() = at::full({3}, 4.0, at::kFloat);
  EXPECT_NEAR(optimizer->GradientNorm(), std::sqrt(4 * 9 + 3 * 16), 1e-12);
  parameters[1].value.mutable_grad().fill_(1e30);  // whose square no float holds
  EXPECT_NEAR(optimizer->GradientNorm() / 1e30, std::sqrt(3.0), 1e-6);
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    parameters[1].value.mutable_grad()[1].fill_(bad);
    EXPECT_FALSE(std::isfinite(optimizer->GradientNorm())) << bad;
  }
}

// In chunks, by several threads, of a tensor whose memory is not in the order of its dimensions.
TEST(Optimizers, GradientNormOfALargeParameterIsThatOfFp64) {
  const NamedTensor p =
      Parameter("w", at::zeros({1000, 3, 7, 11}, at::kFloat).contiguous(at::MemoryFormat::ChannelsLast));
  const auto optimizer = MakeOptimizer({}, {p});
  p.value.mutable_grad() = Normal(p.value.sizes(), 1, at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
  const double want = p.value.grad().to(at::kDouble).norm().item<double>();
  EXPECT_NEAR(optimizer->GradientNorm() / want, 1, 1e-13);
}

TEST(Optimizers, ZeroGradLeavesNoGradient) {
  const std::vector<NamedTensor> parameters = {Parameter("w", Normal({2, 2}, 1)), Parameter("v", Normal({2, 2}, 2))};
  const auto optimizer = MakeOptimizer({}, parameters);
  optimizer->ZeroGrad();
  parameters[1].value.mutable_grad() = Normal({2, 2}, 3);
  optimizer->ZeroGrad();
  for (const NamedTensor& p : parameters) EXPECT_FALSE(p.value.grad().defined()) << p.name;
}

// Step t of T = 110, warm-up 10, peak 0.8, final 0.001: up by 0.08 a step, then q = (1 + cos(pi (t - 10) / 100)) / 2.
TEST(LossScaler, HalvesAfterAnOverflowAndDoublesAfter2000GoodUpdates) {
  LossScaler scaler(true);
  EXPECT_EQ(scaler.scale(), 65536);
  EXPECT_FALSE(scaler.Decide(false));
  EXPECT_FALSE(scaler.Decide(false));
  EXPECT_EQ(scaler.scale(), 16384);
  EXPECT_EQ(scaler.skipped_in_a_row(), 2);
  for (int i = 0; i < 1999; ++i) EXPECT_TRUE(scaler.Decide(true));
  EXPECT_EQ(scaler.scale(), 16384);
  EXPECT_TRUE(scaler.Decide(true));
  EXPECT_EQ(scaler.scale(), 32768);
  EXPECT_EQ(scaler.skipped(), 2);
  EXPECT_EQ(scaler.skipped_in_a_row(), 0);
}

TEST(LossScaler, SwitchedOffItOnlyPassesOnWhatItIsTold) {
  LossScaler scaler(false);
  EXPECT_TRUE(scaler.Decide(true));
  EXPECT_FALSE(scaler.Decide(false));
  EXPECT_EQ(scaler.scale(), 1);
  EXPECT_EQ(scaler.skipped(), 0);
}

TEST(LearningRate, RisesLinearlyThenFallsByACosine) {
  const struct {
    const char* where;
    std::int64_t step;
    double want;
  } rows[] = {
      {"first step", 0, 0},
      {"second step", 1, 0.08},
      {"last of the warm-up", 9, 0.72},
      {"peak", 10, 0.8},
      {"quarter: q = (1 + sqrt(1/2)) / 2", 35, 0.8 * (0.85355339059327 + 0.001 * 0.14644660940673)},
      {"middle: q = 1/2", 60, 0.8 * (0.5 + 0.001 * 0.5)},
      {"last step: q = (1 - cos(pi / 100)) / 2 = 0.000246719817", 109, 0.8 * (0.000246719817 + 0.001 * 0.999753280183)},
      {"the end, never trained: q = 0", 110, 0.0008},
  };
  for (const auto& row : rows) EXPECT_NEAR(LearningRate(row.step, 110, 10, 0.8, 0.001), row.want, 1e-12) << row.where;
  EXPECT_EQ(LearningRate(0, 100, 0, 0.8, 0), 0.8) << "without warm-up the first step has the peak";
  EXPECT_EQ(LearningRate(10, 10, 10, 0.8, 0), 0.8) << "a warm-up as long as the run has no fall";
}

}  // namespace
}  // namespace vicreg::train
