#include "worker/train/optim/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <numbers>

namespace vicreg::train {
namespace {

std::vector<at::Tensor> ZerosLike(const std::vector<NamedTensor>& parameters) {
  std::vector<at::Tensor> zeros;
  for (const NamedTensor& p : parameters) zeros.push_back(at::zeros_like(p.value.detach()));
  return zeros;
}

class AdamW : public Optimizer {
 public:
  AdamW(std::vector<NamedTensor> parameters, double decay)
      : Optimizer(std::move(parameters)), decay_(decay), mean_(ZerosLike(parameters_)), square_(ZerosLike(parameters_)) {}

  void Step(double rate, std::int64_t step) override {
    const at::NoGradGuard no_grad;
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
    const double correction1 = 1 - std::pow(kBeta1, static_cast<double>(step));
    const double correction2 = std::sqrt(1 - std::pow(kBeta2, static_cast<double>(step)));
    for (size_t i = 0; i < parameters_.size(); ++i) {
      at::Tensor p = parameters_[i].value;
      const at::Tensor& g = p.grad();
      p.mul_(1 - rate * decay_);
      mean_[i].lerp_(g, 1 - kBeta1);
      square_[i].mul_(kBeta2).addcmul_(g, g, 1 - kBeta2);
      p.addcdiv_(mean_[i], (square_[i].sqrt() / correction2).add_(kEpsilon), -rate / correction1);
    }
  }

  std::vector<NamedTensor> State() const override {
    std::vector<NamedTensor> state;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      state.push_back({parameters_[i].name + ".exp_avg", mean_[i]});
      state.push_back({parameters_[i].name + ".exp_avg_sq", square_[i]});
    }
    return state;
  }

 private:
  const double decay_;
  std::vector<at::Tensor> mean_, square_;
};

class Lars : public Optimizer {
 public:
  Lars(std::vector<NamedTensor> parameters, double decay)
      : Optimizer(std::move(parameters)), decay_(decay), momentum_(ZerosLike(parameters_)) {}

  void Step(double rate, std::int64_t) override {
    const at::NoGradGuard no_grad;
    constexpr double kMomentum = 0.9, kEta = 0.001;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      at::Tensor p = parameters_[i].value;
      at::Tensor g = p.grad();
      if (p.dim() != 1) {
        // The norm is taken after adding the decay, without an epsilon.
        g = g.add(p, decay_);
        const double weight_norm = p.norm().item<double>(), gradient_norm = g.norm().item<double>();
        if (weight_norm > 0 && gradient_norm > 0) g.mul_(kEta * weight_norm / gradient_norm);
      }
      momentum_[i].mul_(kMomentum).add_(g);
      p.sub_(momentum_[i], rate);  // the rate stays outside the buffer
    }
  }

  std::vector<NamedTensor> State() const override {
    std::vector<NamedTensor> state;
    for (size_t i = 0; i < parameters_.size(); ++i) state.push_back({parameters_[i].name + ".momentum", momentum_[i]});
    return state;
  }

 private:
  const double decay_;
  std::vector<at::Tensor> momentum_;
};

}  // namespace

void Optimizer::ZeroGrad() {
  for (const NamedTensor& p : parameters_) {
    if (p.value.grad().defined()) p.value.mutable_grad().zero_();
  }
}

std::unique_ptr<Optimizer> MakeOptimizer(const recipe::Optimizer& options, const std::vector<NamedTensor>& parameters) {
  if (options.kind == recipe::OptimizerKind::kLars) return std::make_unique<Lars>(parameters, options.weight_decay);
  return std::make_unique<AdamW>(parameters, options.weight_decay);
}

double LearningRate(std::int64_t step, std::int64_t total, std::int64_t warmup, double peak, double final_fraction) {
  if (step < warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (total <= warmup) return peak;
  const double q = 0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step - warmup) / static_cast<double>(total - warmup)));
  return peak * (q + final_fraction * (1 - q));
}

}  // namespace vicreg::train
