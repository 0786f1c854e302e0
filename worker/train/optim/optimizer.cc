#include "worker/train/optim/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>

namespace vicreg::train {
namespace {

// lars and larc need a copy of what they update. Many at a time need not mean all at a time: 16 MiB of fp32, or one
// larger parameter.
constexpr int64_t kBucketNumbers = int64_t{1} << 22;

// Norms on the host, by one copy for the whole list.
std::vector<double> Norms(at::TensorList tensors) {
  const at::Tensor norms = at::stack(at::_foreach_norm(tensors)).to(at::kCPU, at::kDouble);
  return {norms.const_data_ptr<double>(), norms.const_data_ptr<double>() + norms.numel()};
}

// In fp64, where ATen would first write an fp64 copy; the same bits for any number of threads. fp32 on a CPU.
double SumOfSquares(const at::Tensor& tensor) {
  constexpr int64_t kChunk = int64_t{1} << 16, kLanes = 8;
  const at::Tensor dense = tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
  const float* const values = dense.const_data_ptr<float>();
  const int64_t count = dense.numel(), chunks = (count + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<size_t>(chunks));
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      double lanes[kLanes] = {};
      const int64_t last = std::min(count, (chunk + 1) * kChunk);
      int64_t i = chunk * kChunk;
      for (; i + kLanes <= last; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const double value = values[i + lane];
          lanes[lane] += value * value;
        }
      }
      for (; i < last; ++i) lanes[0] += static_cast<double>(values[i]) * values[i];
      sums[static_cast<size_t>(chunk)] = std::accumulate(lanes, lanes + kLanes, 0.0);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

class AdamW : public Optimizer {
 public:
  static constexpr const char* kSlots[] = {"exp_avg", "exp_avg_sq"};

  AdamW(const std::vector<NamedTensor>& parameters, double decay) : Optimizer(parameters, kSlots), decay_(decay) {}

  void Step(double rate, std::int64_t step) override {
    const at::NoGradGuard no_grad;
    for (Bucket& b : buckets_) {
      const std::vector<at::Tensor> g = b.Gradients();
      const std::vector<at::Tensor> steps(g.size(), at::full({}, step, g[0].options().dtype(at::kFloat)));
      at::_fused_adamw_(b.values, g, b.state[0], b.state[1], /*max_exp_avg_sqs=*/{}, steps, rate, /*beta1=*/0.9,
                        /*beta2=*/0.999, decay_, /*eps=*/1e-8, /*amsgrad=*/false, /*maximize=*/false);
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
      const Direction d = Towards(b, rate);
      at::_fused_sgd_(b.values, d.gradients, b.state[0], d.decay, /*momentum=*/0.9, rate, /*dampening=*/0,
                      /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false);
    }
  }

 protected:
  // d = gradients + decay * p
  struct Direction {
    std::vector<at::Tensor> gradients;
    double decay = 0;
  };
  virtual Direction Towards(const Bucket& bucket, double rate) const = 0;
};

class Sgd : public Momentum {
 public:
  Sgd(const std::vector<NamedTensor>& parameters, double decay) : Momentum(parameters), decay_(decay) {}

 protected:
  Direction Towards(const Bucket& bucket, double) const override { return {bucket.Gradients(), decay_}; }

 private:
  const double decay_;
};

class Lars : public Momentum {
 public:
  Lars(const std::vector<NamedTensor>& parameters, double decay) : Momentum(parameters), decay_(decay) {}

 protected:
  Direction Towards(const Bucket& bucket, double) const override {
    constexpr double kEta = 0.001;
    if (bucket.one_dimension) return {bucket.Gradients()};
    // The norm is taken after adding the decay, without an epsilon.
    std::vector<at::Tensor> g = at::_foreach_add(bucket.Gradients(), bucket.values, decay_);
    const std::vector<double> p_norms = Norms(bucket.values), g_norms = Norms(g);
    std::vector<at::Scalar> scales;
    for (size_t i = 0; i < g.size(); ++i) {
      scales.emplace_back(p_norms[i] > 0 && g_norms[i] > 0 ? kEta * p_norms[i] / g_norms[i] : 1.0);
    }
    at::_foreach_mul_(g, scales);
    return {g};
  }

 private:
  const double decay_;
};

class Larc : public Momentum {
 public:
  Larc(const std::vector<NamedTensor>& parameters, const recipe::Optimizer& options)
      : Momentum(parameters), options_(options) {}

 protected:
  Direction Towards(const Bucket& bucket, double rate) const override {
    std::vector<at::Tensor> g = bucket.Gradients();
    if (bucket.one_dimension) return {g};
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
    return {g};
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
  for (Bucket& bucket : buckets_) {
    for (at::Tensor& value : bucket.values) value.mutable_grad().reset();
  }
}

void Optimizer::ScaleGradients(double factor) {
  const at::NoGradGuard no_grad;
  for (const Bucket& bucket : buckets_) at::_foreach_mul_(bucket.Gradients(), factor);
}

double Optimizer::GradientNorm() const {
  double square = 0;
  for (const Bucket& bucket : buckets_) {
    const std::vector<at::Tensor> gradients = bucket.Gradients();
    if (gradients[0].is_cpu() && gradients[0].scalar_type() == at::kFloat) {
      for (const at::Tensor& g : gradients) square += SumOfSquares(g);
    } else {
      square += at::stack(at::_foreach_norm(gradients, 2, at::kDouble)).square().sum().item<double>();
    }
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
