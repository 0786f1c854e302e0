#include "worker/train/optim/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

namespace vicreg::train {
namespace {

// An update needs a copy of what it updates. Many at a time need not mean all at a time: 16 MiB of fp32, or one larger
// parameter.
constexpr int64_t kBucketNumbers = int64_t{1} << 22;

// Norms on the host, by one copy for the whole list.
std::vector<double> Norms(at::TensorList tensors) {
  const at::Tensor norms = at::stack(at::_foreach_norm(tensors)).to(at::kCPU, at::kDouble);
  return {norms.const_data_ptr<double>(), norms.const_data_ptr<double>() + norms.numel()};
}

class AdamW : public Optimizer {
 public:
  static constexpr const char* kSlots[] = {"exp_avg", "exp_avg_sq"};

  AdamW(const std::vector<NamedTensor>& parameters, double decay) : Optimizer(parameters, kSlots), decay_(decay) {}

  void Step(double rate, std::int64_t step) override {
    const at::NoGradGuard no_grad;
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
    const double correction1 = 1 - std::pow(kBeta1, static_cast<double>(step));
    const double correction2 = std::sqrt(1 - std::pow(kBeta2, static_cast<double>(step)));
    for (Bucket& b : buckets_) {
      const std::vector<at::Tensor> g = b.Gradients();
      std::vector<at::Tensor>&mean = b.state[0], &square = b.state[1];
      at::_foreach_mul_(b.values, 1 - rate * decay_);
      at::_foreach_lerp_(mean, g, 1 - kBeta1);
      at::_foreach_mul_(square, kBeta2);
      at::_foreach_addcmul_(square, g, g, 1 - kBeta2);
      std::vector<at::Tensor> divisor = at::_foreach_sqrt(square);
      at::_foreach_div_(divisor, correction2);
      at::_foreach_add_(divisor, kEpsilon);
      at::_foreach_addcdiv_(b.values, mean, divisor, -rate / correction1);
    }
  }

 private:
  const double decay_;
};

// What sgd, lars and larc share: m = 0.9 m + d, p -= rate m, where each says what d is. The rate stays outside the
// buffer.
class Momentum : public Optimizer {
 public:
  static constexpr const char* kSlots[] = {"momentum"};

  explicit Momentum(const std::vector<NamedTensor>& parameters) : Optimizer(parameters, kSlots) {}

  void Step(double rate, std::int64_t) override {
    const at::NoGradGuard no_grad;
    for (Bucket& b : buckets_) {
      const std::vector<at::Tensor> direction = Direction(b, rate);
      at::_foreach_mul_(b.state[0], 0.9);
      at::_foreach_add_(b.state[0], direction);
      at::_foreach_sub_(b.values, b.state[0], rate);
    }
  }

 protected:
  virtual std::vector<at::Tensor> Direction(const Bucket& bucket, double rate) const = 0;
};

class Sgd : public Momentum {
 public:
  Sgd(const std::vector<NamedTensor>& parameters, double decay) : Momentum(parameters), decay_(decay) {}

 protected:
  std::vector<at::Tensor> Direction(const Bucket& bucket, double) const override {
    return at::_foreach_add(bucket.Gradients(), bucket.values, decay_);
  }

 private:
  const double decay_;
};

class Lars : public Momentum {
 public:
  Lars(const std::vector<NamedTensor>& parameters, double decay) : Momentum(parameters), decay_(decay) {}

 protected:
  std::vector<at::Tensor> Direction(const Bucket& bucket, double) const override {
    constexpr double kEta = 0.001;
    if (bucket.one_dimension) return bucket.Gradients();
    // The norm is taken after adding the decay, without an epsilon.
    std::vector<at::Tensor> g = at::_foreach_add(bucket.Gradients(), bucket.values, decay_);
    const std::vector<double> p_norms = Norms(bucket.values), g_norms = Norms(g);
    std::vector<at::Scalar> scales;
    for (size_t i = 0; i < g.size(); ++i) {
      scales.emplace_back(p_norms[i] > 0 && g_norms[i] > 0 ? kEta * p_norms[i] / g_norms[i] : 1.0);
    }
    at::_foreach_mul_(g, scales);
    return g;
  }

 private:
  const double decay_;
};

class Larc : public Momentum {
 public:
  Larc(const std::vector<NamedTensor>& parameters, const recipe::Optimizer& options)
      : Momentum(parameters), options_(options) {}

 protected:
  std::vector<at::Tensor> Direction(const Bucket& bucket, double rate) const override {
    std::vector<at::Tensor> g = bucket.Gradients();
    if (bucket.one_dimension) return g;
    const double decay = options_.weight_decay;
    const std::vector<double> p_norms = Norms(bucket.values), g_norms = Norms(g);  // before the decay is added
    std::vector<at::Scalar> scales;
    for (size_t i = 0; i < g.size(); ++i) {
      double q = options_.eta * p_norms[i] / (g_norms[i] + decay * p_norms[i] + 1e-8);
      if (options_.clip) q = std::min(q / rate, 1.0);  // 1 at rate 0, where nothing moves
      // Without a direction p is not decayed either; without a length there is nothing to decay.
      scales.emplace_back(g_norms[i] == 0 ? 0.0 : p_norms[i] == 0 ? 1.0 : q);
    }
    g = at::_foreach_add(g, bucket.values, decay);
    at::_foreach_mul_(g, scales);
    return g;
  }

 private:
  const recipe::Optimizer options_;
};

}  // namespace

std::vector<at::Tensor> Bucket::Gradients() const {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& value : values) gradients.push_back(value.grad());
  return gradients;
}

Optimizer::Optimizer(const std::vector<NamedTensor>& parameters, std::span<const char* const> slots) {
  std::optional<size_t> open[2];  // bucket being filled: of more dimensions, of one
  int64_t filled[2] = {0, 0};
  for (const NamedTensor& p : parameters) {
    const bool one = p.value.dim() == 1;
    if (!open[one] || filled[one] + p.value.numel() > kBucketNumbers) {
      open[one] = buckets_.size();
      filled[one] = 0;
      buckets_.push_back({{}, std::vector<std::vector<at::Tensor>>(slots.size()), one});
    }
    filled[one] += p.value.numel();
    Bucket& bucket = buckets_[*open[one]];
    bucket.values.push_back(p.value);
    for (size_t i = 0; i < slots.size(); ++i) {
      bucket.state[i].push_back(at::zeros_like(p.value.detach()));
      state_.push_back({p.name + "." + slots[i], bucket.state[i].back()});
    }
  }
}

void Optimizer::ZeroGrad() {
  const at::NoGradGuard no_grad;
  for (const Bucket& bucket : buckets_) {
    std::vector<at::Tensor> gradients = bucket.Gradients();
    std::erase_if(gradients, [](const at::Tensor& g) { return !g.defined(); });
    if (!gradients.empty()) at::_foreach_zero_(gradients);
  }
}

void Optimizer::ScaleGradients(double factor) {
  const at::NoGradGuard no_grad;
  for (const Bucket& bucket : buckets_) at::_foreach_mul_(bucket.Gradients(), factor);
}

double Optimizer::GradientNorm() const {
  double square = 0;
  for (const Bucket& bucket : buckets_) {
    square += at::stack(at::_foreach_norm(bucket.Gradients(), 2, at::kDouble)).square().sum().item<double>();
  }
  return std::sqrt(square);
}

std::unique_ptr<Optimizer> MakeOptimizer(const recipe::Optimizer& options, const std::vector<NamedTensor>& parameters) {
  switch (options.kind) {
    case recipe::OptimizerKind::kAdamW:
      return std::make_unique<AdamW>(parameters, options.weight_decay);
    case recipe::OptimizerKind::kLars:
      return std::make_unique<Lars>(parameters, options.weight_decay);
    case recipe::OptimizerKind::kLarc:
      return std::make_unique<Larc>(parameters, options);
    case recipe::OptimizerKind::kSgd:
      return std::make_unique<Sgd>(parameters, options.weight_decay);
  }
  return nullptr;
}

double LearningRate(std::int64_t step, std::int64_t total, std::int64_t warmup, double peak, double final_fraction) {
  if (step < warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (total <= warmup) return peak;
  const double q =
      0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step - warmup) / static_cast<double>(total - warmup)));
  return peak * (q + final_fraction * (1 - q));
}

}  // namespace vicreg::train
